"""Files, devices, the command line, errors: what every wing needs and no field of research names."""
