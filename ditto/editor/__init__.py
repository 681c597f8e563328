"""The editor: a page of this machine on which a person edits the controls of a recording over time (`ditto edit`).

It may import what sessions may, and the access control of the server.
"""
