"""The published Ditto behind the objects of `ditto`: what lies between its networks, and the parts made of both."""
