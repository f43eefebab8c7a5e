package keywright_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"html/template"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"
	"testing"
	texttemplate "text/template"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// canary is a token that must appear nowhere but in the Authorization header
// and through Reveal.
const canary = "CANARYcanary0123456789CANARYcanary0123456789"

// leaks fails if a text holds the canary in any form that a careless printer
// gives it.
func leaks(t *testing.T, where, text string) {
	t.Helper()
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprint([]byte(canary)), canary[6:30]} {
		assert.NotContains(t, text, strings.Trim(form, "[]"), where)
	}
}

// sinks prints v in every way that we know of.
func sinks(v any) map[string]string {
	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%f", "%e", "%g", "%c", "%U", "%o", "%p", "%T"} {
		out["fmt "+verb] = fmt.Sprintf(verb, v)
	}
	out["fmt.Sprint"] = fmt.Sprint(v)
	out["fmt.Errorf"] = fmt.Errorf("wrapped: %v", v).Error()
	add := func(name string, b []byte, err error) { out[name] = string(b) + fmt.Sprint(err) }
	b, err := json.Marshal(v)
	add("json", b, err)
	b, err = xml.Marshal(v)
	add("xml", b, err)
	var buf bytes.Buffer
	err = gob.NewEncoder(&buf).Encode(v)
	add("gob", buf.Bytes(), err)
	for name, h := range map[string]func(*bytes.Buffer) slog.Handler{
		"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"slog json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var buf bytes.Buffer
		slog.New(h(&buf)).Info("m", "v", v, slog.Any("a", v), slog.Group("g", "v", v))
		out[name] = buf.String()
	}
	var tb bytes.Buffer
	_ = texttemplate.Must(texttemplate.New("").Parse(`{{.}} {{printf "%#v" .}}`)).Execute(&tb, v)
	_ = template.Must(template.New("").Parse(`{{.}} <script>var x = {{.}}</script>`)).Execute(&tb, v)
	out["templates"] = tb.String()
	r := &recorder{}
	assert.Equal(r, "something else", v)
	assert.Nil(r, v)
	assert.Contains(r, []any{v}, "x")
	out["testify"] = r.text
	out["walker"] = strings.Join(walk(reflect.ValueOf(v), 0), "\n")
	func() {
		defer func() { out["panic"] = fmt.Sprint(recover()) + string(debug.Stack()) }()
		panic(v)
	}()
	return out
}

// walk returns every text that can be reached from v, unexported fields
// included: it goes wherever spew, pretty printers, go-cmp and debuggers go.
func walk(v reflect.Value, depth int) (texts []string) {
	if !v.IsValid() || depth > 12 {
		return nil
	}
	if v.CanAddr() && !v.CanInterface() { // an unexported field: look all the same
		v = reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	switch v.Kind() {
	case reflect.String:
		return []string{v.String()}
	case reflect.Pointer, reflect.Interface:
		return walk(v.Elem(), depth+1)
	case reflect.Struct:
		if !v.CanAddr() {
			p := reflect.New(v.Type()).Elem()
			p.Set(v)
			v = p
		}
		for i := range v.NumField() {
			texts = append(texts, walk(v.Field(i), depth+1)...)
		}
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
			return []string{string(v.Bytes())}
		}
		for i := range v.Len() {
			texts = append(texts, walk(v.Index(i), depth+1)...)
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			texts = append(append(texts, walk(it.Key(), depth+1)...), walk(it.Value(), depth+1)...)
		}
	}
	return texts
}

// recorder is a failing test that keeps what it was told.
type recorder struct{ text string }

func (r *recorder) Errorf(format string, args ...any) { r.text += fmt.Sprintf(format, args...) }

// holder has a secret where printers do not expect methods.
type holder struct {
	Open   keywright.Secret
	hidden keywright.Secret
	ptr    *keywright.Secret
	list   []keywright.Secret
	dict   map[string]keywright.Secret
	any    any
}

func TestSecretLeaksThroughNoSink(t *testing.T) {
	t.Parallel()
	s := keywright.NewSecret(canary)
	h := holder{s, s, &s, []keywright.Secret{s}, map[string]keywright.Secret{"k": s}, s}
	for name, v := range map[string]any{"bare": s, "pointer": &s, "struct": h, "struct pointer": &h, "slice": []keywright.Secret{s}, "map": h.dict, "in any": []any{s, &s}} {
		for sink, text := range sinks(v) {
			leaks(t, name+" through "+sink, text)
		}
	}
	assert.Equal(t, canary, s.Reveal())
}

// TestExportedTypesLeakThroughNoSink finds every exported type that can hold a
// secret by reflection, fills all its secrets with the canary and prints it.
func TestExportedTypesLeakThroughNoSink(t *testing.T) {
	t.Parallel()
	types := map[string]reflect.Type{}
	for _, v := range exportedTypes {
		types[reflect.TypeOf(v).Name()] = reflect.TypeOf(v)
	}
	for _, name := range exportedStructs(t) {
		assert.Contains(t, types, name, "an exported struct that this test does not know")
	}
	found := 0
	for name, typ := range types {
		v := reflect.New(typ)
		if fill(v.Elem(), 0) {
			found++
			for sink, text := range sinks(v.Interface()) {
				leaks(t, name+" through "+sink, text)
			}
			for sink, text := range sinks(v.Elem().Interface()) {
				leaks(t, name+" by value through "+sink, text)
			}
		}
	}
	assert.GreaterOrEqual(t, found, 10)
}

// exportedTypes holds one of every exported struct of the package.
var exportedTypes = []any{
	keywright.Ricloud{},
	keywright.AceData{},
	keywright.Secret{},
	keywright.Setting{},
	keywright.Opt[keywright.Secret]{},
	keywright.Key{},
	keywright.KeyConfig{},
	keywright.KeyCreateParams{},
	keywright.KeyUpdateParams{},
	keywright.KeyRotateParams{},
	keywright.KeyListParams{},
	keywright.KeyService{},
	keywright.StorageConfig{},
	keywright.StorageConfigCreateParams{},
	keywright.StorageConfigUpdateParams{},
	keywright.StorageConfigListParams{},
	keywright.StorageConfigService{},
	keywright.WebhookConfig{},
	keywright.WebhookConfigCreateParams{},
	keywright.WebhookConfigUpdateParams{},
	keywright.WebhookConfigListParams{},
	keywright.WebhookConfigService{},
	keywright.Organisation{},
	keywright.Permissions{},
	keywright.PermissionLimit{},
	keywright.OrganisationUpdateParams{},
	keywright.OrganisationService{},
	keywright.Task{},
	keywright.TaskListParams{},
	keywright.TaskService{},
	keywright.Event{},
	keywright.EventListParams{},
	keywright.EventService{},
	keywright.Credential{},
	keywright.CredentialCreateParams{},
	keywright.CredentialUpdateParams{},
	keywright.CredentialListParams{},
	keywright.CredentialService{},
	keywright.Application{},
	keywright.Service{},
	keywright.ApplicationCreateParams{},
	keywright.ApplicationListParams{},
	keywright.ApplicationService{},
	keywright.PlatformToken{},
	keywright.User{},
	keywright.PlatformTokenCreateParams{},
	keywright.PlatformTokenListParams{},
	keywright.PlatformTokenService{},
	keywright.Page[keywright.Key]{},
	keywright.AWSCredentials{},
	keywright.RetryPolicy{},
	keywright.Meta{},
	keywright.Recovery{},
	keywright.APIError{},
	keywright.TransportError{},
	keywright.DecodeError{},
	keywright.RedirectError{},
	keywright.ParamError{},
	keywright.ConfigError{},
	keywright.RotatingToken{},
}

// exportedStructs lists the exported structs of the package from its source.
func exportedStructs(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, 0)
		require.NoError(t, err)
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				ts, ok := s.(*ast.TypeSpec)
				if !ok || !ts.Name.IsExported() || ts.TypeParams != nil {
					continue
				}
				if _, ok := ts.Type.(*ast.StructType); ok {
					out = append(out, ts.Name.Name)
				}
			}
		}
	}
	require.NotEmpty(t, out)
	return out
}

// fill sets every secret that can be reached from v, and everything on the way
// to it, and reports whether there was one.
func fill(v reflect.Value, depth int) bool {
	if depth > 6 || !v.CanSet() {
		return false
	}
	if v.Type() == reflect.TypeFor[keywright.Secret]() {
		v.Set(reflect.ValueOf(keywright.NewSecret(canary)))
		return true
	}
	found := false
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			found = fill(v.Field(i), depth+1) || found
		}
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		if found = fill(p.Elem(), depth+1); found {
			v.Set(p)
		}
	case reflect.Slice:
		s := reflect.MakeSlice(v.Type(), 1, 1)
		if found = fill(s.Index(0), depth+1); found {
			v.Set(s)
		}
	case reflect.Map:
		elem := reflect.New(v.Type().Elem()).Elem()
		if found = fill(elem, depth+1); found {
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("unknown").Convert(v.Type().Key()), elem)
		}
	case reflect.Interface:
		switch {
		case v.Type() == reflect.TypeFor[keywright.StorageCredentials]():
			v.Set(reflect.ValueOf(keywright.GoogleCredentials([]byte(canary))))
			found = true
		case v.NumMethod() == 0: // any
			v.Set(reflect.ValueOf(&keywright.Key{Token: keywright.NewSecret(canary)}))
			found = true
		}
	}
	return found
}

// TestLivingThingsLeakThroughNoSink prints what holds a token while it works:
// clients, services, token sources, options.
func TestLivingThingsLeakThroughNoSink(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte(canary), 0o600))
	file := keywright.FileToken(path)
	_, err := file.Token(t.Context())
	require.NoError(t, err)
	rotating := keywright.NewRotatingToken(keywright.NewSecret(canary))
	rotating.Swap(keywright.NewSecret(canary + "x"))
	rc, ad := ricloudAt(t, "https://ricloud.example", canary), aceDataAt(t, "https://acedata.example", canary)
	for name, v := range map[string]any{
		"static": keywright.StaticToken(keywright.NewSecret(canary)), "file": file, "rotating": rotating, "option": keywright.WithToken(canary),
		"ricloud": rc, "acedata": ad, "service": rc.Key, "set": keywright.Set(keywright.NewSecret(canary)),
		"google": keywright.GoogleCredentials([]byte(canary)), "recovery": &keywright.Recovery{Candidates: []any{&keywright.Key{Token: keywright.NewSecret(canary)}}},
	} {
		for sink, text := range sinks(v) {
			leaks(t, name+" through "+sink, text)
		}
	}
}

// TestNothingLeaksFromCalls makes calls fail in every way, with a server that
// repeats the token wherever it can, and prints everything that comes back.
func TestNothingLeaksFromCalls(t *testing.T) {
	t.Parallel()
	echo := func(status int, contentType, body string) http.RoundTripper {
		return roundTripFunc(func(r *http.Request) (*http.Response, error) {
			assert.NotContains(t, r.URL.String(), canary)
			h := http.Header{"Content-Type": {contentType}}
			for _, name := range []string{"X-Request-Id", "Server", "Retry-After", "Location", "Set-Cookie", "X-Other"} {
				h.Set(name, canary)
			}
			return &http.Response{StatusCode: status, Header: h, Body: readCloser(body), Request: r}, nil
		})
	}
	fails := func(err error) http.RoundTripper {
		return roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, err })
	}
	transports := map[string]http.RoundTripper{
		"200 echo text":      echo(200, "text/plain", canary),
		"200 echo name":      echo(200, "application/json", `{"`+canary+`":{"id":[]},"id":"`+canary+`"}`),
		"200 echo token":     echo(200, "application/json", `{"id":7,"token":"`+canary+`"}`),
		"200 echo in extra":  echo(200, "application/json", `{"id":[1],"token":"`+canary+`"}`),
		"302":                echo(302, "text/html", canary),
		"400 params":         echo(400, "application/json", `{"error":"`+canary+`","message":"bad `+canary+`","params":{"`+canary+`":["`+canary+`"]}}`),
		"400 fields":         echo(400, "application/json", `{"`+canary+`":["`+canary+`"]}`),
		"400 detail":         echo(400, "application/json", `{"detail":{"`+canary+`":{"a":"`+canary+`"}},"code":"`+canary+`","trace_id":"`+canary+`"}`),
		"403 list":           echo(403, "application/json", `["`+canary+`"]`),
		"404 string":         echo(404, "application/json", `"`+canary+`"`),
		"429":                echo(429, "text/plain", canary),
		"500 html":           echo(500, "text/html", "<html>"+canary),
		"503 text":           echo(503, "text/plain", "token "+canary+" is down"),
		"url.Error":          fails(&url.Error{Op: "Get", URL: "https://x/?t=" + canary, Err: errors.New("malformed HTTP response \"" + canary + "\"")}),
		"net.OpError":        fails(&net.OpError{Op: "read", Net: "tcp", Err: errors.New(canary)}),
		"dial":               fails(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New(canary)}),
		"net.DNSError":       fails(&net.DNSError{Err: canary, Name: canary + ".example", Server: canary, IsTemporary: true}),
		"malformed response": fails(fmt.Errorf("net/http: HTTP/1.x transport connection broken: malformed HTTP status code %q", canary)),
	}
	for name, transport := range transports {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logs bytes.Buffer
			logger := slog.New(slog.NewJSONHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
			opts := []keywright.Option{keywright.WithHTTPClient(&http.Client{Transport: transport}), keywright.WithLogger(logger), keywright.WithTimeout(time.Minute)}
			rc := ricloudAt(t, "https://ricloud.example", canary, opts...)
			ad := aceDataAt(t, "https://acedata.example", canary, opts...)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			app := keywright.ApplicationID("82f57141-0000-4000-8000-000000000010")
			var meta keywright.Meta
			id := keywright.CredentialID(app)
			results := map[string]func() (any, error){
				"key.retrieve":   func() (any, error) { return rc.Key.Retrieve(ctx, 1, keywright.WithMeta(&meta)) },
				"key.create":     func() (any, error) { return rc.Key.Create(ctx, keywright.KeyCreateParams{}) },
				"key.list":       func() (any, error) { return rc.Key.List(ctx, keywright.KeyListParams{}) },
				"key.rotate":     func() (any, error) { return rc.Key.RotateWithID(ctx, 1, keywright.KeyRotateParams{}) },
				"webhook.delete": func() (any, error) { return nil, rc.WebhookConfig.DeleteWithID(ctx, 1) },
				"organisation":   func() (any, error) { return rc.Organisation.Retrieve(ctx) },
				"event":          func() (any, error) { return rc.Event.Retrieve(ctx, "e") },
				"credential.create": func() (any, error) {
					return ad.Credential.Create(ctx, keywright.CredentialCreateParams{ApplicationID: app})
				},
				"credential.list":   func() (any, error) { return ad.Credential.List(ctx, keywright.CredentialListParams{}) },
				"credential.rotate": func() (any, error) { return ad.Credential.RotateWithID(ctx, id) },
				"application":       func() (any, error) { return ad.Application.Retrieve(ctx, app) },
				"platform_token":    func() (any, error) { return ad.PlatformToken.Create(ctx, keywright.PlatformTokenCreateParams{}) },
				"storage.create": func() (any, error) {
					return rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{
						URL: "s3://bucket", Credentials: keywright.AWSCredentials{AccessKeyID: "AKIA0", SecretAccessKey: keywright.NewSecret(canary)},
					})
				},
			}
			for op, call := range results {
				v, err := call()
				if err == nil {
					for sink, text := range sinks(v) {
						leaks(t, op+" result through "+sink, text)
					}
				}
				for _, e := range chain(err) {
					for sink, text := range sinks(e) {
						leaks(t, fmt.Sprintf("%s error %T through %s", op, e, sink), text)
					}
				}
			}
			for sink, text := range sinks(meta) {
				leaks(t, "meta through "+sink, text)
			}
			leaks(t, "logs", logs.String())
			assert.NotEmpty(t, logs.String())
			assert.NotContains(t, logs.String(), "ricloud.example")
		})
	}
}

// chain returns an error and everything it wraps.
func chain(err error) []error {
	if err == nil {
		return nil
	}
	out := []error{err}
	switch u := err.(type) { //nolint:errorlint // this is the walk itself
	case interface{ Unwrap() error }:
		out = append(out, chain(u.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			out = append(out, chain(e)...)
		}
	}
	return out
}

func readCloser(s string) *closer { return &closer{strings.NewReader(s)} }

type closer struct{ *strings.Reader }

func (closer) Close() error { return nil }

// A proxy that refuses the connection, with a password in its URL.
func TestProxyPassword(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	u, err := url.Parse("http://user:" + canary + "@" + l.Addr().String())
	require.NoError(t, err)
	rc := ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u)}}))
	_, err = rc.Key.Current(t.Context())
	for _, e := range chain(err) {
		for sink, text := range sinks(e) {
			leaks(t, sink, text)
		}
	}
	require.ErrorContains(t, err, "connection refused")
}

// The request line never carries the token, and nothing is sent elsewhere,
// whatever a middleware does.
func TestTokenStaysWithItsOrigin(t *testing.T) {
	t.Parallel()
	var elsewhere bool
	other := keywrighttest.StartRicloud(t)
	fake := keywrighttest.StartRicloud(t)
	u, err := url.Parse(other.URL())
	require.NoError(t, err)
	rc := ricloud(t, fake, keywright.WithMiddleware(func(next http.RoundTripper) http.RoundTripper {
		return roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if elsewhere {
				r = r.Clone(r.Context())
				r.URL.Host = u.Host
			}
			return next.RoundTrip(r)
		})
	}))
	_, err = rc.Key.Current(t.Context())
	require.NoError(t, err)
	elsewhere = true
	_, err = rc.Key.Current(t.Context())
	require.ErrorContains(t, err, "another origin")
	_, err = rc.Key.Create(t.Context(), keywright.KeyCreateParams{})
	require.ErrorContains(t, err, "another origin")
	assert.Empty(t, other.Requests())
	for _, r := range fake.Requests() {
		assert.NotContains(t, r.Path+r.Query.Encode(), fake.Token())
	}
}

// No file of the repository names a place of one machine, or holds a canary.
func TestSourceIsClean(t *testing.T) {
	t.Parallel()
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(path, ".git/") {
			return err
		}
		if path == "leak_test.go" {
			return nil
		}
		b, err := os.ReadFile(path)
		assert.NotContains(t, string(b), canary, path)
		return err
	})
	require.NoError(t, err)
}
