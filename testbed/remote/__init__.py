"""Where else it can run: another machine, reached over SSH.

    address      where a machine is, who logs in there, and with what
    connection   a session with its SSH server; host keys are checked
    far          the part that runs there (sent with every order)
    session      an order to that part: frames, beats, and the news that the link is lost
    command      a command there, with live output, a terminal where one is wanted, its status
    project      which files make up the project here
    transfer     the project over there, results back here
    wheels       Python packages for a machine that has no way to the package index
    setup        copy, wheels, setup.sh
    machines     what is known of each machine between two commands
    providers    who brings a machine up and down: QEMU, Vagrant, or nobody

Waiting is done in threads, as paramiko does.
"""
