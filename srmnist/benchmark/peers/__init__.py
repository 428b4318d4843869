"""The same network in other libraries, each as its users would write it for speed; none is a dependency.

Each module has a function ``make(name, model, inputs, targets, gpu, batch)`` that gives a
`srmnist.benchmark.variants.Variant` with the weights of `model`. All train with Chainer's constants: Adam
with a rate of 0.001 and an epsilon of 1e-8, batch normalisation with an epsilon of 2e-5 and a decay of 0.9.
"""

RATE, BETA1, BETA2, ADAM_EPSILON = 1e-3, 0.9, 0.999, 1e-8
EPSILON, DECAY = 2e-5, 0.9
