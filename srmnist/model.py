"""The model: CNNAE, as the article defines it.

kzkadc, "ディープラーニングで簡単な超解像をやってみた", section 高解像化モデル (Qiita), and the class of the
same name in the author's script. Attribute names are the article's, so saved weights are interchangeable.
"""

import chainer.functions as F
import chainer.links as L
from chainer import Chain, report

from srmnist.engine import accelerated


class CNNAE(Chain):
    """Four 3×3 convolutions, 1 → 16 → 32 → 64 → 1, that restore a degraded image.

    The first three have no bias and are followed by batch normalisation and ReLU; the last has a bias and
    a sigmoid, which keeps every pixel in [0, 1]. 23,761 weights of convolution and 224 of normalisation.
    Being fully convolutional, it takes images of any height and width.
    """

    def __init__(self):
        super().__init__()
        with self.init_scope():
            N = 16
            kwds = {"ksize": 3, "stride": 1, "pad": 1, "nobias": True}
            self.conv1 = L.Convolution2D(1, N, **kwds)
            self.bn1 = L.BatchNormalization(N)
            self.conv2 = L.Convolution2D(N, N * 2, **kwds)
            self.bn2 = L.BatchNormalization(N * 2)
            self.conv3 = L.Convolution2D(N * 2, N * 4, **kwds)
            self.bn3 = L.BatchNormalization(N * 4)
            self.conv4 = L.Convolution2D(N * 4, 1, ksize=3, stride=1, pad=1)

    @accelerated
    def forward(self, x):
        """Restore degraded images.

        Parameters
        ----------
        x : Variable or ndarray of float32, shape (B, 1, H, W)
            Degraded images, intensities in [0, 1].

        Returns
        -------
        Variable of float32, shape (B, 1, H, W)
            Restored images, intensities in (0, 1).
        """
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        h = F.relu(self.bn3(self.conv3(h)))
        h = F.sigmoid(self.conv4(h))

        return h

    def __call__(self, x, t):
        """Mean squared error between the restored `x` and the original `t`; reported as ``loss``.

        Parameters
        ----------
        x, t : Variable or ndarray of float32, shape (B, 1, H, W)
            Degraded images and their originals.

        Returns
        -------
        Variable of float32, shape ()
        """
        h = self.forward(x)
        loss = F.mean_squared_error(h, t)
        report({"loss": loss}, self)
        return loss
