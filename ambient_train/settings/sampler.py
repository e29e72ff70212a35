"""Settings of the samplers, at the place where settings are looked for; they are declared beside the samplers."""

from ambient_train.diffusion.sampler_settings import (
    DISCRETIZATIONS,
    SCALINGS,
    SCHEDULES,
    SOLVERS,
    GeneralSamplerConfig,
    SamplerConfig,
)

__all__ = ["DISCRETIZATIONS", "SCALINGS", "SCHEDULES", "SOLVERS", "GeneralSamplerConfig", "SamplerConfig"]
