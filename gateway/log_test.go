package gateway_test

import "sync"

// lastLog keeps the end of a log, for the report of a test that failed.
type lastLog struct {
	mu  sync.Mutex
	buf []byte
}

const lastLogSize = 64 << 10

func (l *lastLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, line...)
	if len(l.buf) > 2*lastLogSize {
		l.buf = append(l.buf[:0], l.buf[len(l.buf)-lastLogSize:]...)
	}
	return len(line), nil
}

func (l *lastLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf[max(0, len(l.buf)-lastLogSize):])
}
