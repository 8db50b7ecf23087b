"""What each stem promises of the machine code of its GPU kernels: `GATES` of a module named as the stem."""
