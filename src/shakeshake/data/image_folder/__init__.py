"""A folder of images as a data set: scanned, decoded once, cached."""
