"""The lite renderer: a portrait and a motion become a picture of the face crop, and that becomes a frame."""
