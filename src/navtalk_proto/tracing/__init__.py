"""What happened in a session, line by line: written while it runs, shown and replayed later.

Not imported with :mod:`navtalk_proto`: most sessions are not traced.
"""
