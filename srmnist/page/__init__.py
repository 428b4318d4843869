"""The page `results/try.html`, on which anybody draws a digit and sees it shrunk and restored.

`export.py` joins the sources in this directory into one file that needs no server:

=============  ==============================================================================
`page.html`    the page's structure; it names the other files where they are to be put
`style.css`    how the page looks
`network.js`   the degradation and the network, with Chainer's numbers
`digit.js`     a drawing becomes an image like MNIST's; the simple reader
`words.js`     every word, in English and in Japanese
`views.js`     the board and the four images, with their captions
`app.js`       what the mouse, the pen, the finger and the keyboard do
=============  ==============================================================================

`reader.py` computes what the reader compares with.
"""
