package brewery

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"brewline/config"
)

// clockSkew is by how much a server's clock may be behind ours.
const clockSkew = 30 * time.Second

// claims are what Prosody's mod_auth_token looks at (RFC 7519 §4.1).
type claims struct {
	Issuer    string `json:"iss,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Room      string `json:"room"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
}

// mintToken makes a token for one room, or for "*", all of them.
func mintToken(j config.JWT, subject, room string, now time.Time) (string, error) {
	header := struct {
		Type      string `json:"typ"`
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid,omitempty"`
	}{"JWT", j.Algorithm, j.KeyID}
	body := claims{
		Issuer: j.Issuer, Audience: j.Audience, Subject: subject, Room: room,
		IssuedAt:  now.Unix(),
		NotBefore: now.Add(-clockSkew).Unix(),
		Expires:   now.Add(j.TTL.Duration).Unix(),
	}
	h, err := json.Marshal(header)
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	b, err := json.Marshal(body)
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString(h) + "." + enc.EncodeToString(b)
	sig, err := sign(j, []byte(signed))
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	return signed + "." + enc.EncodeToString(sig), nil
}

// sign is JWS with HS256 or RS256 (RFC 7518 §3.2, §3.3).
func sign(j config.JWT, data []byte) ([]byte, error) {
	switch j.Algorithm {
	case "HS256":
		m := hmac.New(sha256.New, []byte(j.Key.Value()))
		m.Write(data)
		return m.Sum(nil), nil
	case "RS256":
		key, err := rsaKey(j.Key.Value())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		return rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	}
	return nil, fmt.Errorf("algorithm %q is neither HS256 nor RS256", j.Algorithm)
}

func rsaKey(text string) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the key is not PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key is no RSA private key, PKCS #1 or #8")
	}
	r, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T, RS256 needs RSA", key)
	}
	return r, nil
}
