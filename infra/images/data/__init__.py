"""Sources of the image of the runtime `data`."""
