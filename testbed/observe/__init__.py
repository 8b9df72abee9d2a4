"""What happens on links and sockets while a trial runs, sampled from the kernel.

    netlink, interfaces, qdiscs, sockets    what is asked, and what the answers mean (pure)
    changes                                 which values become rows
    sampler, worker                         everything at one instant; every instant, as a process
    observation                             the worker as the trial sees it
    capture                                 packets into files
    throughput                              what chosen links deliver, for use cases that ask
    commands, usecase                       any topology and any command as a use case
    figures                                 what is drawn of it

Samples go through the ordinary recorder.  Nothing here changes the network that it looks at.
"""
