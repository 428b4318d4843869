"use strict";

// Every word of the page in its two languages. {…} is replaced by a value, see `word` in app.js.
const WORDS = {
  en: {
    title: "Draw a digit",
    lead: "It is shrunk to {size}×{size} pixels. A small neural network brings back what it can.",
    hint: "Draw here",
    undo: "Undo",
    clear: "Clear",
    board: "Board: draw a digit",
    digits: "Ten test digits of MNIST",
    digit: "Test digit {digit}",
    views: "What becomes of the digit",
    original: "Original",
    shrunk: "Shrunk",
    degraded: "Bilinear",
    restored: "Network",
    decibels: "{decibels} dB",
    reading: "read as {digit}",
    size: "Shrink to",
    announcement: "Original read as {original}. Bilinear: {degradedDecibels} dB, read as {degraded}. "
      + "Network: {restoredDecibels} dB, read as {restored}.",
    empty: "The board is empty.",
    noteMnist: "The original is what MNIST’s makers would have made of your drawing: fitted into 20×20 pixels, and "
      + "centred by its centre of mass in 28×28. It is shrunk and enlarged again, bilinearly both times; that is all "
      + "the network is given. dB is the PSNR, how close an image is to the original. More is better.",
    noteNetwork: "The network is CNNAE: four convolutions, {parameters} trained numbers. It runs here, in your browser. "
      + "The page opens no connection, and nothing that you draw leaves it.",
    noteReader: "“Read as” is not the network’s opinion. A simple reader names the most similar of {prototypes} mean "
      + "digits. It reads {accuracy} % of MNIST’s 10,000 test digits correctly, so it is sometimes wrong, too.",
    keys: "Keys: 0–9 test digits, ← → size, Backspace undo, Esc clear. On the board: arrows move the pen, "
      + "Space lowers and lifts it.",
    sources: "After the article",
    license: "Test digits: MNIST by Y. LeCun, C. Cortes and C. J. C. Burges, CC BY-SA 3.0",
  },
  ja: {
    title: "数字を描く",
    lead: "描いた数字を {size}×{size} 画素に縮め、小さなニューラルネットワークで復元します。",
    hint: "ここに描いてください",
    undo: "元に戻す",
    clear: "消す",
    board: "数字を描く板",
    digits: "MNIST のテスト用数字 10 枚",
    digit: "テスト用の数字 {digit}",
    views: "数字の変化",
    original: "元画像",
    shrunk: "縮小後",
    degraded: "双線形補間",
    restored: "復元",
    decibels: "{decibels} dB",
    reading: "判読: {digit}",
    size: "縮小後の大きさ",
    announcement: "元画像の判読は {original}。双線形補間は {degradedDecibels} dB で、判読は {degraded}。"
      + "復元は {restoredDecibels} dB で、判読は {restored}。",
    empty: "何も描かれていません。",
    noteMnist: "元画像は、描いた数字を MNIST の作成者と同じ方法で整えたものです。20×20 画素に収め、重心が中央に来るように "
      + "28×28 画素に置きます。これを双線形補間で縮小し、同じ方法で拡大します。ネットワークに渡すのはこの画像だけです。"
      + "dB は PSNR で、元画像への近さを表します。大きいほど近い画像です。",
    noteNetwork: "ネットワークは CNNAE です。畳み込み 4 層、学習済みの値は {parameters} 個です。計算はすべてこのブラウザの中で行います。"
      + "このページは通信をせず、描いたものをどこにも送りません。",
    noteReader: "「判読」はネットワークの判断ではありません。{prototypes} 個の平均的な数字のうち、最も似ているものの名前です。"
      + "この方法は MNIST のテスト画像 10,000 枚の {accuracy} % を正しく読みます。間違えることもあります。",
    keys: "キー操作: 0–9 でテスト用の数字、← → で大きさ、Backspace で元に戻す、Esc で消す。"
      + "板の上では矢印キーでペンを動かし、スペースキーで下ろす・上げる。",
    sources: "元の記事",
    license: "テスト用の数字: MNIST（Y. LeCun, C. Cortes, C. J. C. Burges）、CC BY-SA 3.0",
  },
};
