// 全体停止（日本語）。

import type { recall as en } from "../en/recall";

export const recall: Record<keyof typeof en, string> = {
  "halt.open": "すべてのロールアウトを停止",
  "halt.banner": "すべてのロールアウトが停止中です。",
  "halt.by": "実行者: {by}",
  "halt.confirmed": "{confirmed} 台が確認済み、{unconfirmed} 台が未確認、{offline} 台がオフライン",
  "halt.resume": "再開…",
  "halt.reason": "理由",
  "halt.halt.title": "すべてのロールアウトを停止",
  "halt.halt.means":
    "再開されるまで、どのデバイスも新しいイメージの導入を開始も続行もしません。稼働中のモデルはそのまま動き続けます。ロールバックは停止中でも行えます。",
  "halt.halt.button": "すべて停止",
  "halt.resume.title": "すべてのロールアウトを再開",
  "halt.resume.means": "各デバイスは停止した時点から続行し、ダウンロード済みのデータは保持されます。一時停止中のロールアウトは一時停止のままです。",
  "halt.resume.button": "再開",
  "halt.device": "待機中: すべてのロールアウトが停止しています。{reason}",
  "rollback.then": "各デバイスがその時点で動かしていたもの",
  "rollback.thenHint": "日時を指定",
  "rollback.time": "日時",
  "rollback.devices": "このデバイスのみ",
  "rollback.devicesHint": "ID を空白区切りで入力。空欄で上記の全デバイス",
  "rollback.step": "{count} 台がバージョン {version} へ",
  "rollback.penalised": "{count} 台は以前そのバージョンで失敗していますが、再度配信します",
  "rollback.quarantinesHere": "対象デバイスでのみ {versions} を隔離(他のデバイスはそのまま)",
  "rollback.untouched": "{count} 台は変更されません",
  "rollback.untouchedMore": "ほか {count} 台",
  "rollback.missing.time": "日時を選択してください。",
};
