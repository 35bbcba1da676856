#!/bin/sh
# Makes the spoken sentences beside this script, one .pkt file each: Opus
# packets of 20 ms, 48 kHz mono, each after its length in two bytes. Needs
# espeak-ng, sox and Go. The files are committed; run this after changing a
# text.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

say() { # name, voice, pitch, words a minute, text
	espeak-ng -v "$2" -p "$3" -s "$4" -w "$tmp/voice.wav" "$5"
	sox "$tmp/voice.wav" -r 48000 -c 1 -b 16 -e signed -L -t raw "$tmp/voice.raw" \
		silence 1 0.01 0.1% reverse silence 1 0.01 0.1% reverse \
		highpass 80 pad 0.3 0.3 norm -4
	go run -tags nolibopusfile pack.go <"$tmp/voice.raw" >"$1.pkt"
}

say invoice en-us 45 160 "The second invoice was paid in March, but the first is still open."
say garden en-gb 60 165 "She planted seven apple trees behind the old stone house."
say weather en-us+f3 55 170 "Tomorrow there will be showers in the west and bright spells later on."
say bridge en-gb+m3 35 155 "We measured the bridge twice and got a different length each time."
say ticket en-us+m2 40 165 "Please buy two tickets for the early train and wait for me outside."
say kitchen en-us+f2 65 160 "The kitchen smelled of fresh bread, coffee and a little smoke."
say budget en-gb+f4 50 170 "If nobody objects, the budget is approved and we move to item five."
say harbour en-us+m7 30 150 "A small boat left the harbour long before the sun came up."
