"""By what the outputs lose without a channel, foretold by a few backward passes.

Molchanov et al., Importance estimation for neural network pruning, CVPR 2019, by the loss that searches go by.
"""

from convkit.compress.shrinking.worth import worth

PART = worth
