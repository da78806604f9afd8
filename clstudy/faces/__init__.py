"""Faces in photos: detection, landmarks, alignment, embedding."""
