"""What operators do from a shell: ``waypost --help``.

Owns      nothing; it acts as the services do, under their roles and by their functions
Reads     organizations, instances, what is sealed under which key
Writes    the first operator, instances of an imported backup, what is sealed anew
Promises  that whatever is cut short can be started again, and does nothing twice
"""
