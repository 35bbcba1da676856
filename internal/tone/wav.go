package tone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

const wavHeader = 44

// WriteWAV writes pcm as a mono 16-bit PCM WAV file.
func WriteWAV(path string, rate int, pcm []int16) error {
	var b bytes.Buffer
	b.Grow(wavHeader + 2*len(pcm))
	w := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a bytes.Buffer does not fail
	b.WriteString("RIFF")
	w(uint32(wavHeader - 8 + 2*len(pcm)))
	b.WriteString("WAVEfmt ")
	w(uint32(16))
	w([]uint16{1, 1}) // PCM, one channel
	w(uint32(rate))
	w(uint32(2 * rate))
	w([]uint16{2, 16}) // bytes per frame, bits per sample
	b.WriteString("data")
	w(uint32(2 * len(pcm)))
	w(pcm)
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write wav: %w", err)
	}
	return nil
}

// ReadWAV reads a 16-bit PCM WAV file and returns its sample rate and
// samples. Of several channels the first is returned.
func ReadWAV(path string) (rate int, pcm []int16, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, nil, fmt.Errorf("read wav: %w", err)
	}
	rate, pcm, err = ParseWAV(b)
	if err != nil {
		return 0, nil, fmt.Errorf("read wav %s: %w", path, err)
	}
	return rate, pcm, nil
}

// ParseWAV is ReadWAV for bytes in memory.
func ParseWAV(b []byte) (rate int, pcm []int16, err error) {
	if len(b) < 12 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WAVE" {
		return 0, nil, errors.New("not a WAV file")
	}
	channels := 0
	for b = b[12:]; len(b) >= 8; {
		id, size := string(b[:4]), int64(binary.LittleEndian.Uint32(b[4:]))
		b = b[8:]
		// Streamed files carry a size too large: take what is there.
		body := b[:min(size, int64(len(b)))]
		switch id {
		case "fmt ":
			if len(body) < 16 {
				return 0, nil, errors.New("short fmt chunk")
			}
			format, bits := binary.LittleEndian.Uint16(body), binary.LittleEndian.Uint16(body[14:])
			channels = int(binary.LittleEndian.Uint16(body[2:]))
			rate = int(binary.LittleEndian.Uint32(body[4:]))
			if (format != 1 && format != 0xfffe) || bits != 16 || channels == 0 || rate == 0 {
				return 0, nil, fmt.Errorf("format %d with %d bits, %d channels is not 16-bit PCM", format, bits, channels)
			}
		case "data":
			if channels == 0 {
				return 0, nil, errors.New("data before fmt")
			}
			pcm = make([]int16, len(body)/(2*channels))
			for i := range pcm {
				pcm[i] = int16(binary.LittleEndian.Uint16(body[2*channels*i:]))
			}
			return rate, pcm, nil
		}
		b = b[min(size+size&1, int64(len(b))):]
	}
	return 0, nil, errors.New("no data chunk")
}
