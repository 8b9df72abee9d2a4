"""The part that runs on the other machine: sent there as source, run by the python3 found there.

    wire        frames on the channel, acknowledged data, beats both ways
    supervise   a command, its output live, and the end of all that it started
    files       the project and wheels received; results sent back
    main        what was ordered

Only the standard library, and nothing of the testbed outside this folder.  Nothing is installed
to make it run, and it leaves nothing but the files that it was sent.
"""
