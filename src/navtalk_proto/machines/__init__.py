"""The state machines, each one table. They never import each other; connection.py wires them."""
