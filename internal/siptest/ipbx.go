package siptest

import (
	"context"
	"maps"
	"sync"
)

// IPBXOptions configure an IPBX.
type IPBXOptions struct {
	Gateway    string       // "host:port" of the gateway's SIP listener
	User       string       // called user, "phoneMeet"
	RoomHeader string       // "X-Room-Name"
	Phone      PhoneOptions // of every phone; Codec is each one's own
}

// IPBX is a telephone system with any number of calls to one gateway, one
// phone for each codec, that names the room in a header field.
type IPBX struct {
	o      IPBXOptions
	mu     sync.Mutex
	phones map[string]*Phone
}

// NewIPBX makes an IPBX. Close frees it.
func NewIPBX(o IPBXOptions) *IPBX {
	if o.User == "" {
		o.User = "phoneMeet"
	}
	if o.RoomHeader == "" {
		o.RoomHeader = "X-Room-Name"
	}
	return &IPBX{o: o, phones: map[string]*Phone{}}
}

// Phone returns the phone that speaks a codec ("": that of the options).
func (b *IPBX) Phone(codec string) (*Phone, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.phones[codec]; p != nil {
		return p, nil
	}
	o := b.o.Phone
	if codec != "" {
		o.Codec, o.Codecs = codec, nil
	}
	p, err := NewPhone(o)
	if err != nil {
		return nil, err
	}
	b.phones[codec] = p
	return p, nil
}

// Start begins a call into a room. An empty o.URI is the gateway's; an empty
// room leaves the header field out.
func (b *IPBX) Start(ctx context.Context, codec, room string, o CallOptions) (*Attempt, error) {
	p, err := b.Phone(codec)
	if err != nil {
		return nil, err
	}
	if o.URI == "" {
		o.URI = "sip:" + b.o.User + "@" + b.o.Gateway
	}
	if room != "" {
		h := map[string]string{b.o.RoomHeader: room}
		maps.Copy(h, o.Headers)
		o.Headers = h
	}
	return p.Start(ctx, o)
}

// Call calls into a room and returns at the final response, as [Phone.Call].
func (b *IPBX) Call(ctx context.Context, codec, room string, o CallOptions) (*Call, error) {
	a, err := b.Start(ctx, codec, room, o)
	if err != nil {
		return nil, err
	}
	return a.Wait(ctx)
}

// Ping asks the gateway by OPTIONS whether it takes calls, as a dispatcher
// does, and returns the code and the header fields of the answer.
func (b *IPBX) Ping(ctx context.Context) (int, map[string]string, error) {
	p, err := b.Phone("")
	if err != nil {
		return 0, nil, err
	}
	return p.Ping(ctx, b.o.Gateway)
}

// Close frees the phones.
func (b *IPBX) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.phones {
		_ = p.Close()
	}
	clear(b.phones)
	return nil
}
