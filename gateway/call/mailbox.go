package call

import "sync"

// mailboxSize bounds what may wait for the Call goroutine.
const mailboxSize = 256

// mailbox is what the call's children and handlers post to. Posting never
// blocks. A terminal event cannot overflow: the first one is kept beside the
// queue.
type mailbox struct {
	mu       sync.Mutex
	queue    []any
	terminal *ending
	wake     chan struct{}
}

// ending is a terminal event: the end, what caused it, and which end of the
// call needs no more word.
type ending struct {
	end       End
	detail    error
	phoneGone bool
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// post queues an event; too many waiting end the call.
func (m *mailbox) post(e any) {
	m.mu.Lock()
	if len(m.queue) < mailboxSize {
		m.queue = append(m.queue, e)
	} else if m.terminal == nil {
		m.terminal = &ending{end: EndInternal}
	}
	m.mu.Unlock()
	m.signal()
}

// end sets the terminal event, if there is none yet. That the phone has gone
// is noted in any case.
func (m *mailbox) end(e ending) {
	m.mu.Lock()
	if m.terminal == nil {
		m.terminal = &e
	} else if e.phoneGone {
		m.terminal.phoneGone = true
	}
	m.mu.Unlock()
	m.signal()
}

func (m *mailbox) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take returns everything that waits.
func (m *mailbox) take() (events []any, terminal *ending) {
	m.mu.Lock()
	defer m.mu.Unlock()
	events, m.queue = m.queue, nil
	if m.terminal != nil {
		e := *m.terminal
		terminal = &e
	}
	return events, terminal
}
