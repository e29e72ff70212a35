"""What is a noisy image worth in the user's own data: a sweep of small trainings that is designed while it runs."""
