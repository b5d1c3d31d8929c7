"""Replay data: episodes, images, offline datasets."""
