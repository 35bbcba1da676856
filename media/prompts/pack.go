//go:build ignore

// Pack encodes 16 kHz mono PCM (16 bit, little endian) from standard input to
// Opus packets of 20 ms, each after its length in two bytes, big endian.
package main

import (
	"encoding/binary"
	"io"
	"log"
	"os"

	"brewline/media/codec"
)

func main() {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	e, err := codec.NewOpusEncoder(16000, codec.OpusOptions{Complexity: 10, Bitrate: 24000})
	if err != nil {
		log.Fatal(err)
	}
	pcm, packet := make([]int16, 320), make([]byte, 1500)
	var out []byte
	for len(in) > 0 {
		clear(pcm)
		n := min(len(in)/2, len(pcm))
		for i := range n {
			pcm[i] = int16(binary.LittleEndian.Uint16(in[2*i:]))
		}
		in = in[min(max(2*n, 2), len(in)):]
		k, err := e.Encode(packet, pcm)
		if err != nil {
			log.Fatal(err)
		}
		out = binary.BigEndian.AppendUint16(out, uint16(k))
		out = append(out, packet[:k]...)
	}
	if _, err := os.Stdout.Write(out); err != nil {
		log.Fatal(err)
	}
}
