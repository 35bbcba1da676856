package xmpp

import (
	"context"
	"sync"
	"time"

	"brewline/xmpp/internal/split"
)

// wire is a connection that carries one XML stream.
type wire interface {
	// read returns the next element of the stream.
	read() (split.Element, error)
	// restart prepares reading for a new stream, before its opening is sent.
	restart()
	// open and end are what begins and ends a stream.
	open() []byte
	end() []byte
	// write sends elements in order, or fails within timeout.
	write(els [][]byte, timeout time.Duration) error
	// shut closes the connection; reading and writing fail from then on.
	shut()
}

// stream is the transport over a wire. One goroutine writes; the caller of
// Recv reads.
type stream struct {
	w       wire
	timeout time.Duration // of a write
	max     int
	name    string // of the shard
	writer  sync.WaitGroup

	mu      sync.Mutex
	work    sync.Cond
	queue   [][]byte
	err     error
	closing bool
	ended   chan struct{} // closed when err is set
}

func newStream(w wire, o Options, shard string) *stream {
	s := &stream{w: w, timeout: o.RequestTimeout, max: o.QueueSize, name: shard, ended: make(chan struct{})}
	s.work.L = &s.mu
	s.writer.Add(1)
	go s.write()
	return s
}

func (s *stream) Shard() string { return s.name }
func (s *stream) Established()  {}
func (s *stream) Wait()         { s.writer.Wait() }

func (s *stream) Send(el []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case s.closing:
		return ErrClosed
	case len(s.queue) >= s.max:
		return ErrQueueFull
	}
	s.queue = append(s.queue, el)
	s.work.Signal()
	return nil
}

func (s *stream) Restart() error {
	s.w.restart()
	return s.Send(s.w.open())
}

func (s *stream) Recv() (split.Element, error) {
	el, err := s.w.read()
	if err != nil {
		s.Abort(err)
		s.mu.Lock()
		defer s.mu.Unlock()
		return split.Element{}, s.err
	}
	return el, nil
}

func (s *stream) write() {
	defer s.writer.Done()
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && s.err == nil {
			s.work.Wait()
		}
		batch := s.queue
		s.queue = nil
		over := s.err != nil
		s.mu.Unlock()
		if over {
			return
		}
		if err := s.w.write(batch, s.timeout); err != nil {
			s.Abort(err)
			return
		}
	}
}

// Close sends last and the end of the stream and waits for the server to end
// its own.
func (s *stream) Close(ctx context.Context, last []byte) {
	s.mu.Lock()
	if s.err == nil && !s.closing {
		s.closing = true
		if last != nil {
			s.queue = append(s.queue, last)
		}
		s.queue = append(s.queue, s.w.end())
		s.work.Signal()
	}
	s.mu.Unlock()
	select {
	case <-s.ended:
	case <-ctx.Done():
	}
	s.Abort(ErrClosed)
	s.writer.Wait()
}

func (s *stream) Abort(err error) {
	s.mu.Lock()
	if s.err == nil {
		if s.closing {
			err = ErrClosed
		}
		s.err = err
		close(s.ended)
		s.work.Signal()
	}
	s.mu.Unlock()
	s.w.shut()
}
