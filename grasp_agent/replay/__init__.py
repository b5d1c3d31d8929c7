"""Experience: episodes, images, offline datasets."""
