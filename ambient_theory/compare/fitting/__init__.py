"""Error curves E_inf + a N^-p, their least-squares fits and the statistics of what is left over."""
