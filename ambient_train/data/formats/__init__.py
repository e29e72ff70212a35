"""What files hold, read without trusting them: arrays, encoded images, trees of files and the tables beside them."""
