package sink

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keywright/keywright"
)

// VaultConfig says where in Vault a token goes.
type VaultConfig struct {
	// Address is the server's, "https://vault.example:8200". Plain http is
	// allowed to a loopback host, where a Vault Agent or Proxy may listen.
	Address string
	// Mount is the path of the secrets engine, which must be KV version 2;
	// "secret" by default.
	Mount string
	// Path is the secret's within the mount, "apps/billing".
	Path string
	// Field is the key within the secret that holds the token; "token" by
	// default. The secret's other fields are kept.
	Field string
	// Namespace is sent as X-Vault-Namespace; empty for none.
	Namespace string
	// Token provides the Vault token. It is asked for each request, and a
	// [keywright.Reloader] once more when Vault refuses the token: with
	// [keywright.FileToken], a token file that an agent renews may expire.
	Token keywright.TokenSource
	// HTTPClient is used in place of the sink's own; it is copied, and the
	// copy follows no redirects. It is the place for a private CA.
	HTTPClient *http.Client
	// Lag is how long the last reader may take to fetch a new version; zero is
	// five minutes, the interval at which a Vault Agent renders static secrets.
	Lag time.Duration
}

const (
	vaultOp      = "sink.VaultKV2"
	vaultReadLag = 5 * time.Minute
)

// VaultKV2 returns a sink that is one field of a secret in a KV version 2
// engine of HashiCorp Vault or OpenBao. Each write is a new version, made with
// check-and-set against the version that was read.
//
// Its Reading.Version is "v7" for version 7, also if that version was deleted
// or destroyed, and empty for a secret that never was. Values of the other
// fields are written back as Vault returned them; those of a deleted version
// are not brought back.
func VaultKV2(cfg VaultConfig) (Sink, error) {
	r, err := newRest(vaultOp, cfg.Address, cfg.Token, cfg.HTTPClient)
	if err != nil {
		return nil, err
	}
	cfg.Mount = cmp.Or(cfg.Mount, "secret")
	cfg.Field = cmp.Or(cfg.Field, "token")
	cfg.Lag = cmp.Or(cfg.Lag, vaultReadLag)
	if err := checkParams(vaultOp, param{"Mount", cfg.Mount, true}, param{"Path", cfg.Path, true}); err != nil {
		return nil, err
	}
	if strings.ContainsFunc(cfg.Namespace, unicode.IsControl) {
		return nil, &keywright.ParamError{Op: vaultOp, Field: "Namespace", Reason: "contains a control character"}
	}
	if !utf8.ValidString(cfg.Field) {
		return nil, &keywright.ParamError{Op: vaultOp, Field: "Field", Reason: "is not UTF-8"}
	}
	if cfg.Lag < 0 {
		return nil, &keywright.ParamError{Op: vaultOp, Field: "Lag", Reason: "is negative"}
	}
	r.name = "vault " + r.base + " " + cfg.Mount + "/" + cfg.Path + "#" + cfg.Field
	if cfg.Namespace != "" {
		r.name += " in " + cfg.Namespace
	}
	r.needs = "create, update and read on " + strconv.Quote(cfg.Mount+"/data/"+cfg.Path)
	r.headers = func(h http.Header, token string) {
		h.Set("X-Vault-Token", token)
		h.Set("X-Vault-Request", "true") // an agent may ask for it, against forged requests
		if cfg.Namespace != "" {
			h.Set("X-Vault-Namespace", cfg.Namespace)
		}
	}
	return &vaultKV2{
		rest: r, mount: cfg.Mount, field: cfg.Field, lag: cfg.Lag,
		path: "/v1/" + escapePath(cfg.Mount) + "/data/" + escapePath(cfg.Path),
	}, nil
}

type vaultKV2 struct {
	rest  *rest
	mount string
	path  string
	field string
	lag   time.Duration
}

func (v *vaultKV2) Name() string { return v.rest.name }

func (v *vaultKV2) Traits() Traits {
	return Traits{
		Lag:       v.lag,
		Readable:  true,
		Grade:     GradeReadBack,
		Guarantee: "Vault has stored the token as a new version of the secret, and nothing was written in between.",
	}
}

// vaultSecret is the current version of a secret.
type vaultSecret struct {
	Reading
	version uint64                     // 0: there never was one
	fields  map[string]json.RawMessage // nil if the version is gone
}

func (v *vaultKV2) Read(ctx context.Context) (Reading, error) {
	now, err := v.get(ctx, v.rest.begin("read"))
	return now.Reading, err
}

func (v *vaultKV2) Confirm(ctx context.Context, token keywright.Secret) error {
	x := v.rest.begin("confirm", token)
	now, err := v.get(ctx, x)
	if err != nil {
		return err
	}
	return x.holds(now.Reading, token)
}

func (v *vaultKV2) CompareAndWrite(ctx context.Context, previous Reading, token keywright.Secret) error {
	x := v.rest.begin("write", token, previous.Token)
	if token.IsZero() {
		return x.fail(ErrRefused, "there is no token to write")
	}
	if !utf8.ValidString(token.Reveal()) {
		return x.fail(ErrRefused, "the token is not UTF-8, and would be damaged")
	}
	now, err := v.get(ctx, x)
	if err != nil {
		return err
	}
	if err := x.unchanged(now.Reading, previous); err != nil {
		return err
	}
	if now.Token.Equal(token) {
		return nil // another version would say nothing new
	}
	body, err := vaultBody(now.fields, v.field, token, now.version)
	if err != nil {
		return x.fail(ErrRefused, "the secret's other fields cannot be written back")
	}
	a, err := x.send(ctx, request{http.MethodPost, v.path, "application/json", body})
	switch {
	case err != nil:
		return err
	case a.status == http.StatusOK:
		return nil
	case a.status == http.StatusNoContent:
		return x.refuse(a, "the engine at "+strconv.Quote(v.mount)+" is not KV version 2: it took the write literally, "+
			"without check-and-set; delete what it stored below data/")
	case a.status == http.StatusBadRequest && strings.Contains(a.message(), "check-and-set parameter did not match"):
		return x.fail(ErrConflict, "somebody else has written a version after "+state(now.Version))
	}
	return v.unexpected(x, a)
}

// get reads the current version.
func (v *vaultKV2) get(ctx context.Context, x *exchange) (vaultSecret, error) {
	a, err := x.send(ctx, request{method: http.MethodGet, path: v.path})
	if err != nil {
		return vaultSecret{}, err
	}
	if a.status != http.StatusOK && a.status != http.StatusNotFound {
		return vaultSecret{}, v.unexpected(x, a)
	}
	var body struct {
		Data *struct {
			Data     map[string]json.RawMessage `json:"data"`
			Metadata struct {
				Version uint64 `json:"version"`
			} `json:"metadata"`
		} `json:"data"`
		Errors *[]string `json:"errors"`
	}
	if err := x.decode(a, &body); err != nil {
		return vaultSecret{}, err
	}
	switch {
	case body.Data != nil && body.Data.Metadata.Version > 0: // a 404 with it is a version that was deleted
	case a.status == http.StatusOK:
		return vaultSecret{}, x.refuse(a, "the engine at "+strconv.Quote(v.mount)+" is not KV version 2")
	case body.Errors != nil && len(*body.Errors) == 0 && body.Data == nil:
		return vaultSecret{}, nil
	default:
		return vaultSecret{}, v.unexpected(x, a)
	}
	now := vaultSecret{version: body.Data.Metadata.Version}
	now.Version = "v" + strconv.FormatUint(now.version, 10)
	now.fields = body.Data.Data // null with a 404
	for name, raw := range now.fields {
		var text string
		if err := json.Unmarshal(raw, &text); err == nil {
			x.hide(keywright.NewSecret(text)) // it is sent back with a write
		}
		switch {
		case name != v.field || string(raw) == "null":
		case raw[0] != '"':
			return vaultSecret{}, x.fail(ErrRefused, "field "+strconv.QuoteToASCII(v.field)+" holds something that is not a string")
		default:
			now.Token = keywright.NewSecret(text)
		}
	}
	return now, nil
}

// unexpected is an answer that no other case knows.
func (v *vaultKV2) unexpected(x *exchange, a *answer) error {
	switch {
	case a.status == http.StatusNotFound:
		return x.refuse(a, "there is no secrets engine at "+strconv.Quote(v.mount)+"; enable KV version 2 there")
	case a.status == http.StatusPreconditionFailed, // a replica that lags behind
		a.status == http.StatusBadRequest && strings.Contains(a.message(), "Upgrading from non-versioned"):
		return x.fail(ErrTemporary, x.saying(a, "Vault is not ready"))
	}
	return x.refuse(a, "Vault refused")
}

// vaultBody returns the write that replaces one field of a secret. The others
// stay as they came, to the last digit of a number.
func vaultBody(fields map[string]json.RawMessage, field string, token keywright.Secret, version uint64) ([]byte, error) {
	value, err := exactJSON(token.Reveal())
	if err != nil {
		return nil, err
	}
	data := maps.Clone(fields)
	if data == nil {
		data = make(map[string]json.RawMessage, 1)
	}
	data[field] = value
	return exactJSON(map[string]any{"data": data, "options": map[string]uint64{"cas": version}})
}

// exactJSON encodes v without rewriting <, > and & inside of strings.
func exactJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
