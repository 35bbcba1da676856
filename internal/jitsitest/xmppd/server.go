package xmppd

// Server is one simulated Prosody.
type Server struct{ o Options }

// Start serves on ports of its own choice.
func Start(o Options) (*Server, error) { o.fill(); return &Server{o: o}, nil }

func (s *Server) Close() error                                        { return nil }
func (s *Server) Options() Options                                    { return s.o }
func (s *Server) BOSHURL() string                                     { return "" } // http://127.0.0.1:port/http-bind
func (s *Server) WebSocketURL() string                                { return "" }
func (s *Server) C2SAddr() string                                     { return "" } // host:port
func (s *Server) ComponentAddr() string                               { return "" } // host:port
func (s *Server) Rooms() []RoomInfo                                   { return nil }
func (s *Server) Occupants(room string) []OccupantInfo                { return nil } // full room JID, or its local part
func (s *Server) Sessions() int                                       { return 0 }   // logged-in client sessions
func (s *Server) Requests() []Request                                 { return nil }
func (s *Server) SetPassword(room, password string) error             { return nil } // "" removes it
func (s *Server) EnableLobby(room string, on bool) error              { return nil }
func (s *Server) Admit(room, nick string) error                       { return nil }
func (s *Server) Deny(room, nick string) error                        { return nil }
func (s *Server) Kick(room, nick, reason string) error                { return nil }
func (s *Server) Destroy(room, alternate, reason string) error        { return nil }
func (s *Server) SetAffiliation(room, bare, affiliation string) error { return nil }
func (s *Server) Inject(to, stanza string) error                      { return nil } // deliver XML to a session as if routed
func (s *Server) DropSession(jid string) error                        { return nil }
func (s *Server) Faults() *Faults                                     { return nil }
func (s *Server) Kill()                                               {}             // connections and listeners gone, state lost
func (s *Server) Restart() error                                      { return nil } // on the same ports
