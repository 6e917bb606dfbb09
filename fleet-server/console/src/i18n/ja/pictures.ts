// What is counted of pictures, in Japanese.

import type { pictures as en } from "../en/pictures";

export const pictures: Record<keyof typeof en, string> = {
  "subject.image.width": "画像：幅（ピクセル）",
  "subject.image.height": "画像：高さ（ピクセル）",
  "subject.image.aspect": "画像：縦横比（幅÷高さ）",
  "subject.image.brightness": "画像：明るさ（0～255）",
  "subject.image.contrast": "画像：コントラスト（明るさの標準偏差、0～128）",
  "subject.image.saturation": "画像：彩度（%）",
  "subject.image.sharpness": "画像：鮮鋭度（ラプラシアンの分散）",
  "subject.image.noise": "画像：ノイズ（標準偏差、0～255）",
  "subject.image.upright": "画像：垂直な線（全体に対する%）",
  "subject.image.slant": "画像：斜めの線（-100～100%）",
  "subject.image.upper-left": "画像：左上の明るさの差（-255～255）",
  "subject.image.upper-middle": "画像：上の明るさの差（-255～255）",
  "subject.image.upper-right": "画像：右上の明るさの差（-255～255）",
  "subject.image.left": "画像：左の明るさの差（-255～255）",
  "subject.image.middle": "画像：中央の明るさの差（-255～255）",
  "subject.image.right": "画像：右の明るさの差（-255～255）",
  "subject.image.lower-left": "画像：左下の明るさの差（-255～255）",
  "subject.image.lower-middle": "画像：下の明るさの差（-255～255）",
  "subject.image.lower-right": "画像：右下の明るさの差（-255～255）",
  "subject.image.group.size": "画像：大きさ",
  "subject.image.group.light": "画像：明るさと色",
  "subject.image.group.detail": "画像：細部",
  "subject.image.group.lines": "画像：線の向き",
  "subject.image.group.places": "画像：明るい場所",
};
