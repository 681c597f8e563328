"""From a picture to a `Portrait`: the face found, its landmarks, crop and person mask; the face mesh.

May import `media`, `ops`, `engines` and the numbers of a motion.
"""
