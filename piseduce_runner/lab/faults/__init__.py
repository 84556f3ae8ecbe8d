"""Faults that a running lab shows on request: `piseduce-run lab fault`.

`table` lists them, `words` reads what a user types, `control` carries it to the supervisor, and
`faults_set` keeps what is set. What a fault does is an asynchronous context manager in the file of
its subject: entering it makes the fault effective, leaving it clears it.
"""
