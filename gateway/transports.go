package gateway

import (
	"cmp"
	"crypto/tls"
	"fmt"

	"brewline/config"
	"brewline/sip"
)

// SIPTransports puts the configured listeners, certificates and advertised
// addresses into the options of a user agent. Those of trunks are asked of
// current, whenever they are needed.
func SIPTransports(c config.SIP, current func() *config.Config, o *sip.Options) error {
	var own *sip.Certificates
	if c.TLS.Certificate != "" {
		var err error
		if own, err = sip.LoadCertificates(c.TLS.Certificate, c.TLS.Key, c.TLS.ClientCA); err != nil {
			return fmt.Errorf("sip.tls: %w", err)
		}
	}
	o.Listen = nil
	for _, l := range c.Listen {
		ln, err := config.ParseListener(l)
		if err != nil {
			return err
		}
		s := sip.Listener{Network: ln.Network, Address: ln.Address, Advertise: cmp.Or(ln.Advertise, c.Advertise)}
		switch {
		case own == nil:
		case ln.Network == "tls":
			s.TLS = own.Server()
		case ln.Network == "wss": // browsers have no certificate to show
			s.TLS = own.ServerForAll()
		}
		o.Listen = append(o.Listen, s)
	}
	o.ClientTLS = func(trunk string) (*tls.Config, error) {
		var t config.TLS
		if trunk := current().Trunk(trunk); trunk != nil {
			t = trunk.TLS
		}
		c, err := t.Config()
		if err == nil && own != nil {
			own.Show(c)
		}
		return c, err
	}
	o.AdvertiseFor = func(trunk string) string {
		if t := current().Trunk(trunk); t != nil {
			return t.Advertise
		}
		return ""
	}
	return nil
}
