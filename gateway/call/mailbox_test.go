package call

import (
	"sync"
	"testing"
)

func TestMailboxKeepsOrder(t *testing.T) {
	m := newMailbox()
	for i := range 10 {
		m.post(i)
	}
	<-m.wake
	events, terminal := m.take()
	if terminal != nil || len(events) != 10 {
		t.Fatalf("%d events, terminal %v", len(events), terminal)
	}
	for i, e := range events {
		if e != i {
			t.Fatalf("event %d is %v", i, e)
		}
	}
}

// A terminal event gets through however full the mailbox is.
func TestTerminalEventCannotOverflow(t *testing.T) {
	m := newMailbox()
	m.end(ending{end: EndKicked})
	for range 3 * mailboxSize {
		m.post("noise")
	}
	m.end(ending{end: EndCallerHungUp, phoneGone: true})
	events, terminal := m.take()
	if len(events) != mailboxSize {
		t.Errorf("%d events were kept", len(events))
	}
	if terminal == nil || terminal.end != EndKicked || !terminal.phoneGone {
		t.Errorf("terminal event is %+v, want the first one, knowing that the phone has gone", terminal)
	}
}

func TestOverflowEndsTheCall(t *testing.T) {
	m := newMailbox()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range mailboxSize {
				m.post("noise")
			}
		})
	}
	wg.Wait()
	if _, terminal := m.take(); terminal == nil || terminal.end != EndInternal {
		t.Errorf("terminal event is %+v", terminal)
	}
}
