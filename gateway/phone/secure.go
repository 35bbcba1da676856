package phone

import (
	"fmt"

	"brewline/media/transport"
	"brewline/sip"
)

// secure tells the sockets where the phone is, and how its packets are
// encrypted; mu is held.
func (l *Leg) secure(m *sip.Media) error {
	l.conn.SetRTCPMux(m.RTCPMux)
	var err error
	switch {
	case m.DTLS != nil:
		d := m.DTLS
		if d.ICE.Ufrag == "" { // else ICE finds out where the phone is
			l.conn.SetRemote(m.Remote, m.RemoteRTCP)
		}
		err = l.conn.Handshake(transport.PhoneHandshake{
			LocalUfrag: d.Local.Ufrag, LocalPwd: d.Local.Pwd, Ufrag: d.ICE.Ufrag,
			Hash: d.Fingerprint.Hash, Fingerprint: d.Fingerprint.Value, Active: d.Active,
		})
	case m.Keys != nil:
		k := m.Keys
		err = l.conn.SetKeys(transport.Keys{Suite: k.Suite, Send: k.Send, Receive: k.Receive, MKI: k.MKI})
		l.conn.SetRemote(m.Remote, m.RemoteRTCP)
	default:
		l.conn.SetPlain()
		l.conn.SetRemote(m.Remote, m.RemoteRTCP)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOffer, err)
	}
	return nil
}
