"""What people and programs see: tables by rich on a terminal, plain lines elsewhere, or JSON.

A file for each kind of thing that is shown.
"""
