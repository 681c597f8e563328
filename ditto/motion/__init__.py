"""The numbers of a motion, and the processes that make and join them: eyes, idle, listening, transitions.

May import `media` and `portrait`; knows no network and no renderer.
"""
