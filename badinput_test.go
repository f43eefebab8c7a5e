package keywright_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// badRow is a row of testdata/bad-inputs.tsv.
type badRow struct {
	n     int
	input string
	class string
}

// badRows returns the rows of a category that are answered here.
func badRows(t *testing.T, category string) []badRow {
	t.Helper()
	var out []badRow
	for _, r := range readTSV(t, "testdata/bad-inputs.tsv") {
		if r["category"] != category || r["status"] != "tested" {
			continue
		}
		n, err := strconv.Atoi(r["n"])
		require.NoError(t, err)
		var input string
		require.NoError(t, json.Unmarshal([]byte(r["input (JSON string)"]), &input), "row %d", n)
		out = append(out, badRow{n, input, r["expected error"]})
	}
	require.NotEmpty(t, out)
	return out
}

// TestBadInputsAreAllAnswered keeps the table honest: a row is tested, belongs
// elsewhere, or says why it is otherwise.
func TestBadInputsAreAllAnswered(t *testing.T) {
	t.Parallel()
	for _, r := range readTSV(t, "testdata/bad-inputs.tsv") {
		status := r["status"]
		assert.True(t, status == "tested" || status == "other" || strings.HasPrefix(status, "changed: "), "row %s: %q", r["n"], status)
	}
}

// never is a client whose every request fails the test.
func never(t *testing.T) (*keywright.Ricloud, *keywright.AceData) {
	t.Helper()
	hc := keywright.WithHTTPClient(&http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
		t.Errorf("request sent: %s %s", r.Method, r.URL.Path)
		return nil, net.ErrClosed
	})})
	return ricloudAt(t, "https://ricloud.example", "some-token-0123456789", hc), aceDataAt(t, "https://acedata.example", "some-token-0123456789", hc)
}

// silent asserts that an error does not repeat its input.
func silent(t *testing.T, err error, input string) {
	t.Helper()
	if len(input) > 4 {
		assert.NotContains(t, err.Error(), input)
	}
}

func TestBadIDs(t *testing.T) {
	t.Parallel()
	rc, ad := never(t)
	ctx := t.Context()
	for _, row := range badRows(t, "id") {
		inputs := []string{row.input}
		switch {
		case strings.Contains(row.input, "(300 bytes)"):
			inputs = []string{strings.Repeat("a", 300)}
		case strings.Contains(row.input, "shaped like a secret"):
			inputs = []string{"sk-0123456789abcdef0123456789abcdef", "platform-v1-0123456789abcdef", "eyJhbGciOiJIUzI1NiJ9.e30.x"}
		}
		for _, input := range inputs {
			t.Run(fmt.Sprint(row.n), func(t *testing.T) {
				t.Parallel()
				if row.class == "(ok)" {
					fake := keywrighttest.StartAceData(t)
					_, err := aceData(t, fake).Credential.Retrieve(ctx, keywright.CredentialID(input))
					require.ErrorIs(t, err, keywright.ErrNotFound)
					assert.Equal(t, "/api/v1/credentials/"+strings.ToLower(input), fake.Requests()[0].Path)
					return
				}
				_, number := keywright.ParseID[keywright.KeyID](input)
				_, uuid := ad.Credential.Retrieve(ctx, keywright.CredentialID(input))
				errs := []error{number, uuid}
				if row.n < 19 || row.n == 33 { // not fit for any kind of id
					_, task := rc.Task.Retrieve(ctx, keywright.TaskID(input))
					errs = append(errs, task)
				}
				for _, err := range errs {
					require.ErrorIs(t, err, keywright.ErrInvalidID)
					require.ErrorAs(t, err, new(*keywright.ParamError))
					assert.Equal(t, keywright.NotSent, keywright.OutcomeOf(err))
					silent(t, err, input)
				}
			})
		}
	}
	for _, id := range []keywright.TaskID{"urn:uuid:../admin", "{550e8400-e29b-41d4-a716-44665544/../}", "a!b", "a*b", "a'b"} {
		_, err := rc.Task.Retrieve(ctx, id)
		require.ErrorIs(t, err, keywright.ErrInvalidID, "one plain segment, whatever it looks like")
	}
	for _, id := range []keywright.KeyID{0, -1, math.MinInt64} {
		_, err := rc.Key.Retrieve(ctx, id)
		require.ErrorIs(t, err, keywright.ErrInvalidID)
	}
	id, err := keywright.ParseID[keywright.KeyID]("42")
	require.NoError(t, err)
	assert.Equal(t, keywright.KeyID(42), id)
}

func TestBadBaseURLs(t *testing.T) {
	t.Parallel()
	for _, row := range badRows(t, "base_url") {
		t.Run(fmt.Sprint(row.n), func(t *testing.T) {
			t.Parallel()
			input := row.input
			if strings.Contains(input, "(276 bytes)") {
				input = "https://" + strings.Repeat("a.", 134)
			}
			_, err := keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithToken("some-token-0123456789"), keywright.WithBaseURL(input))
			if row.class == "(ok)" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, keywright.ErrInvalidURL)
			require.ErrorAs(t, err, new(*keywright.ParamError))
			assert.NotContains(t, err.Error(), "TOKEN")
		})
	}
}

func TestBadWebhookURLs(t *testing.T) {
	t.Parallel()
	rc, _ := never(t)
	for _, row := range badRows(t, "webhook_url") {
		_, err := rc.WebhookConfig.Create(t.Context(), keywright.WebhookConfigCreateParams{URL: row.input})
		require.ErrorIs(t, err, keywright.ErrInvalidURL, row.input)
		_, err = rc.WebhookConfig.UpdateWithID(t.Context(), 1, keywright.WebhookConfigUpdateParams{URL: keywright.Set(row.input)})
		require.ErrorIs(t, err, keywright.ErrInvalidURL, row.input)
	}
	for _, input := range []string{"https://0.0.0.0/", "https://user:pw@h.example/", "https://h.example:99999/"} {
		_, err := rc.WebhookConfig.Create(t.Context(), keywright.WebhookConfigCreateParams{URL: input})
		require.ErrorIs(t, err, keywright.ErrInvalidURL, input)
	}
}

func TestBadTokens(t *testing.T) {
	t.Parallel()
	for _, row := range badRows(t, "token") {
		t.Run(fmt.Sprint(row.n), func(t *testing.T) {
			t.Parallel()
			input := row.input
			if strings.Contains(input, `\`) {
				var err error
				input, err = strconv.Unquote(`"` + input + `"`)
				require.NoError(t, err)
			}
			if strings.HasPrefix(input, "platform-v1-") {
				input = "platform-v1-" + strings.Repeat("0a", 32)
			}
			for _, o := range []keywright.Option{keywright.WithToken(input), keywright.WithTokenSource(keywright.StaticToken(keywright.NewSecret(input)))} {
				rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithBaseURL("https://ricloud.example"), o)
				if err == nil { // a source is asked when it is used
					_, err = rc.Key.Current(t.Context())
				}
				require.Error(t, err)
				if input != "" {
					require.ErrorIs(t, err, keywright.ErrInvalidToken)
				}
				assert.Equal(t, keywright.NotSent, keywright.OutcomeOf(err))
				silent(t, err, input)
			}
		})
	}
}

func TestBadParams(t *testing.T) {
	t.Parallel()
	rc, ad := never(t)
	ctx := t.Context()
	app := keywright.ApplicationID("82f57141-0000-4000-8000-000000000010")
	api := "e4fbc3b6-0000-4000-8000-000000000030"
	create := func(change func(*keywright.CredentialCreateParams)) error {
		p := keywright.CredentialCreateParams{ApplicationID: app}
		change(&p)
		_, err := ad.Credential.Create(ctx, p)
		return err
	}
	list := func(p keywright.CredentialListParams) error {
		_, err := ad.Credential.List(ctx, p)
		return err
	}
	deep := map[string]any{}
	for range 33 {
		deep = map[string]any{"a": deep}
	}
	var none *http.Client
	cases := map[int]struct {
		field string
		err   func() error
	}{
		118: {"limit", func() error { return list(keywright.CredentialListParams{Limit: -1, UserIDs: []string{"u"}}) }},
		119: {"limit", func() error { return list(keywright.CredentialListParams{Limit: 101, UserIDs: []string{"u"}}) }},
		120: {"limit", func() error { _, err := rc.Key.List(ctx, keywright.KeyListParams{Limit: 1001}); return err }},
		121: {"offset", func() error { return list(keywright.CredentialListParams{Offset: -1, UserIDs: []string{"u"}}) }},
		122: {"name", func() error {
			return create(func(p *keywright.CredentialCreateParams) { p.Name = keywright.Set(strings.Repeat("é", 256)) })
		}},
		124: {"name", func() error {
			return create(func(p *keywright.CredentialCreateParams) { p.Name = keywright.Set("a\xff") })
		}},
		125: {"limited_amount", func() error {
			return create(func(p *keywright.CredentialCreateParams) { p.LimitedAmount = keywright.Set(math.NaN()) })
		}},
		127: {"limited_amount", func() error {
			return create(func(p *keywright.CredentialCreateParams) { p.LimitedAmount = keywright.Set(-0.01) })
		}},
		130: {"expired_at", func() error {
			return create(func(p *keywright.CredentialCreateParams) {
				p.ExpiredAt = keywright.Set(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))
			})
		}},
		133: {"ordering", func() error { return list(keywright.CredentialListParams{Ordering: "foo"}) }},
		134: {"allowed_api_ids[1]", func() error {
			return create(func(p *keywright.CredentialCreateParams) { p.AllowedAPIIDs = keywright.Set([]string{api, "x"}) })
		}},
		135: {"allowed_api_ids[1]", func() error {
			return create(func(p *keywright.CredentialCreateParams) {
				p.AllowedAPIIDs = keywright.Set([]string{api, strings.ToUpper(api)})
			})
		}},
		137: {"metadata.f", func() error {
			return create(func(p *keywright.CredentialCreateParams) {
				p.Metadata = keywright.Set(map[string]any{"f": func() {}})
			})
		}},
		139: {"metadata", func() error {
			return create(func(p *keywright.CredentialCreateParams) { p.Metadata = keywright.Set(deep) })
		}},
		140: {"application_id", func() error { return create(func(p *keywright.CredentialCreateParams) { p.ApplicationID = "" }) }},
		141: {"before_id", func() error {
			_, err := rc.Key.List(ctx, keywright.KeyListParams{AfterID: 5, BeforeID: 5})
			return err
		}},
		142: {"await", func() error {
			_, err := rc.StorageConfig.TestWithID(ctx, 1, keywright.WithAwait(11*time.Second))
			return err
		}},
		143: {"await", func() error {
			_, err := rc.StorageConfig.TestWithID(ctx, 1, keywright.WithAwait(-time.Second))
			return err
		}},
		145: {"tags[0]", func() error {
			return create(func(p *keywright.CredentialCreateParams) { p.Tags = keywright.Set([]string{""}) })
		}},
		147: {"update", func() error {
			_, err := rc.Key.UpdateWithID(ctx, 1, keywright.KeyUpdateParams{})
			return err
		}},
		148: {"context", func() error {
			var none context.Context
			_, err := rc.Key.Current(none)
			return err
		}},
		149: {"option 2", func() error {
			_, err := keywright.NewRicloud(keywright.WithoutEnvironment(), nil)
			return err
		}},
		150: {"HTTP client", func() error {
			_, err := keywright.NewRicloud(keywright.WithHTTPClient(none))
			return err
		}},
	}
	for _, row := range badRows(t, "param") {
		tc, ok := cases[row.n]
		require.True(t, ok, "row %d: %s", row.n, row.input)
		err := tc.err()
		var param *keywright.ParamError
		require.ErrorAs(t, err, &param, "row %d", row.n)
		assert.Equal(t, tc.field, param.Field, "row %d", row.n)
		assert.Equal(t, keywright.NotSent, keywright.OutcomeOf(err))
		assert.Contains(t, err.Error(), tc.field+": ")
	}

	// What the table does not list.
	null := map[string]func(*keywright.CredentialCreateParams){
		"limited_amount":  func(p *keywright.CredentialCreateParams) { p.LimitedAmount = keywright.Null[float64]() },
		"expired_at":      func(p *keywright.CredentialCreateParams) { p.ExpiredAt = keywright.Null[time.Time]() },
		"host":            func(p *keywright.CredentialCreateParams) { p.Host = keywright.Null[string]() },
		"name":            func(p *keywright.CredentialCreateParams) { p.Name = keywright.Null[string]() },
		"allowed_api_ids": func(p *keywright.CredentialCreateParams) { p.AllowedAPIIDs = keywright.Null[[]string]() },
		"for_user_id":     func(p *keywright.CredentialCreateParams) { p.ForUserID = keywright.Null[string]() },
		"tags":            func(p *keywright.CredentialCreateParams) { p.Tags = keywright.Null[[]string]() },
		"metadata":        func(p *keywright.CredentialCreateParams) { p.Metadata = keywright.Null[map[string]any]() },
	}
	for field, change := range null {
		var param *keywright.ParamError
		require.ErrorAs(t, create(change), &param)
		assert.Equal(t, field, param.Field)
	}
	for field, change := range map[string]func(*keywright.CredentialCreateParams){
		"allowed_api_ids": func(p *keywright.CredentialCreateParams) { p.AllowedAPIIDs = keywright.Set([]string(nil)) },
		"tags":            func(p *keywright.CredentialCreateParams) { p.Tags = keywright.Set([]string(nil)) },
		"metadata":        func(p *keywright.CredentialCreateParams) { p.Metadata = keywright.Set(map[string]any(nil)) },
	} {
		var param *keywright.ParamError
		require.ErrorAs(t, create(change), &param, "nil would be sent as null")
		assert.Equal(t, field, param.Field)
	}
	require.ErrorAs(t, list(keywright.CredentialListParams{UserIDs: []string{"me"}}), new(*keywright.ParamError))
	more := map[string]func() error{
		"await": func() error { _, err := rc.Key.Current(ctx, keywright.WithAwait(time.Second)); return err },
		"await ": func() error {
			_, err := rc.StorageConfig.TestWithID(ctx, 1, keywright.WithAwait(1500*time.Millisecond))
			return err
		},
		"url": func() error {
			_, err := rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{})
			return err
		},
		"url ": func() error {
			_, err := rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{URL: "https://bucket", Credentials: keywright.AWSCredentials{}})
			return err
		},
		"url  ": func() error {
			_, err := rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{URL: "s3://key:secret@bucket", Credentials: keywright.AWSCredentials{}})
			return err
		},
		"url   ": func() error {
			_, err := rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{})
			return err
		},
		"credentials": func() error {
			_, err := rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{URL: "s3://bucket"})
			return err
		},
		"credentials ": func() error {
			_, err := rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{URL: "s3://bucket", Credentials: keywright.AWSCredentials{AccessKeyID: "AKIA0"}})
			return err
		},
		"signed_urls_expiry": func() error {
			_, err := rc.StorageConfig.UpdateWithID(ctx, 1, keywright.StorageConfigUpdateParams{SignedURLsExpiry: keywright.Set(time.Millisecond)})
			return err
		},
		"update": func() error {
			_, err := rc.StorageConfig.UpdateWithID(ctx, 1, keywright.StorageConfigUpdateParams{})
			return err
		},
		"update ": func() error {
			_, err := rc.WebhookConfig.UpdateWithID(ctx, 1, keywright.WebhookConfigUpdateParams{})
			return err
		},
		"update  ": func() error {
			_, err := rc.Organisation.Update(ctx, keywright.OrganisationUpdateParams{})
			return err
		},
		"update   ": func() error {
			_, err := ad.Credential.UpdateWithID(ctx, keywright.CredentialID(app), keywright.CredentialUpdateParams{})
			return err
		},
		"storage_config": func() error {
			_, err := rc.Key.Create(ctx, keywright.KeyCreateParams{StorageConfig: keywright.Set(keywright.StorageConfigID(0))})
			return err
		},
		"webhook_config": func() error {
			_, err := rc.Key.UpdateWithID(ctx, 1, keywright.KeyUpdateParams{WebhookConfig: keywright.Set(keywright.WebhookConfigID(-1))})
			return err
		},
		"parallel": func() error {
			_, err := keywright.Collect(rc.Key.All(ctx, keywright.KeyListParams{}, keywright.WithParallel(4)), 1)
			return err
		},
		"parallel ": func() error {
			_, err := rc.Key.List(ctx, keywright.KeyListParams{}, keywright.WithParallel(0))
			return err
		},
		"after_id": func() error { _, err := rc.Key.List(ctx, keywright.KeyListParams{AfterID: -1}); return err },
		"after_id ": func() error {
			_, err := rc.Task.List(ctx, keywright.TaskListParams{AfterID: "../x"})
			return err
		},
		"before_id": func() error {
			_, err := rc.Event.List(ctx, keywright.EventListParams{AfterID: "a", BeforeID: "a"})
			return err
		},
		"user_id[0]": func() error { return list(keywright.CredentialListParams{UserIDs: []string{""}}) },
		"application_id[0]": func() error {
			return list(keywright.CredentialListParams{ApplicationIDs: []keywright.ApplicationID{"x"}})
		},
		"service_id": func() error {
			_, err := ad.Application.Create(ctx, keywright.ApplicationCreateParams{})
			return err
		},
		"service_id ": func() error {
			_, err := ad.Application.Create(ctx, keywright.ApplicationCreateParams{ServiceID: "x"})
			return err
		},
		"service_id[0]": func() error {
			_, err := ad.Application.List(ctx, keywright.ApplicationListParams{ServiceIDs: []string{"x"}})
			return err
		},
		"affiliation[0]": func() error {
			_, err := ad.Application.List(ctx, keywright.ApplicationListParams{Affiliations: []keywright.Affiliation{""}})
			return err
		},
		"expired_at": func() error {
			_, err := ad.Credential.UpdateWithID(ctx, keywright.CredentialID(app), keywright.CredentialUpdateParams{ExpiredAt: keywright.Set(time.Time{})})
			return err
		},
		"host": func() error {
			return create(func(p *keywright.CredentialCreateParams) { p.Host = keywright.Set(strings.Repeat("h", 256)) })
		},
		"for_user_id": func() error {
			return create(func(p *keywright.CredentialCreateParams) { p.ForUserID = keywright.Set("\xff") })
		},
		"metadata.l[0]": func() error {
			return create(func(p *keywright.CredentialCreateParams) {
				p.Metadata = keywright.Set(map[string]any{"l": []any{math.Inf(1)}})
			})
		},
		"user_id": func() error {
			_, err := ad.PlatformToken.Create(ctx, keywright.PlatformTokenCreateParams{UserID: keywright.Set("\xff")})
			return err
		},
		"tags[1]": func() error {
			_, err := ad.PlatformToken.Create(ctx, keywright.PlatformTokenCreateParams{Tags: keywright.Set([]string{"a", "\xff"})})
			return err
		},
		"resource":     func() error { return rc.Key.Rotate(ctx, nil, keywright.KeyRotateParams{}) },
		"resource ":    func() error { return rc.Key.Update(ctx, nil, keywright.KeyUpdateParams{}) },
		"resource  ":   func() error { return rc.StorageConfig.Delete(ctx, nil) },
		"resource   ":  func() error { return rc.WebhookConfig.Delete(ctx, nil) },
		"resource 5":   func() error { return ad.Credential.Delete(ctx, nil) },
		"resource 6":   func() error { return ad.Credential.Rotate(ctx, nil) },
		"resource 7":   func() error { return ad.Credential.Update(ctx, nil, keywright.CredentialUpdateParams{}) },
		"resource 8":   func() error { return rc.StorageConfig.Update(ctx, nil, keywright.StorageConfigUpdateParams{}) },
		"resource 9":   func() error { return rc.WebhookConfig.Update(ctx, nil, keywright.WebhookConfigUpdateParams{}) },
		"resource 10":  func() error { _, err := rc.StorageConfig.Test(ctx, nil); return err },
		"resource 11":  func() error { _, err := rc.WebhookConfig.Test(ctx, nil); return err },
		"option 1":     func() error { _, err := rc.Key.Current(ctx, nil); return err },
		"header":       func() error { _, err := rc.Key.Current(ctx, keywright.WithHeader("Authorization", "x")); return err },
		"header 2":     func() error { _, err := rc.Key.Current(ctx, keywright.WithHeader("Idempotency-Key", "x")); return err },
		"header 3":     func() error { _, err := rc.Key.Current(ctx, keywright.WithHeader("X-A", "a\r\nb: c")); return err },
		"header 4":     func() error { _, err := rc.Key.Current(ctx, keywright.WithHeader("X A", "a")); return err },
		"header 5":     func() error { _, err := rc.Key.Current(ctx, keywright.WithHeader("", "a")); return err },
		"meta":         func() error { _, err := rc.Key.Current(ctx, keywright.WithMeta(nil)); return err },
		"timeout":      func() error { _, err := rc.Key.Current(ctx, keywright.WithTimeout(0)); return err },
		"call timeout": func() error { _, err := rc.Key.Current(ctx, keywright.WithCallTimeout(-1)); return err },
		"retry": func() error {
			_, err := rc.Key.Current(ctx, keywright.WithRetry(keywright.RetryPolicy{BaseDelay: -1}))
			return err
		},
		"retry.MaxAttempts": func() error {
			_, err := rc.Key.Current(ctx, keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: -1}))
			return err
		},
	}
	for field, call := range more {
		var param *keywright.ParamError
		require.ErrorAs(t, call(), &param, field)
		want, _, _ := strings.Cut(field, " ")
		if strings.HasPrefix(field, "option") || strings.HasPrefix(field, "call") {
			want = field
		}
		assert.Equal(t, want, param.Field)
	}
}

func TestBadClientOptions(t *testing.T) {
	t.Parallel()
	var transport *http.Transport
	for field, o := range map[string]keywright.Option{
		"token source":   keywright.WithTokenSource(nil),
		"token source ":  keywright.WithTokenSource((*keywright.RotatingToken)(nil)),
		"base URL":       keywright.WithBaseURL(""),
		"logger":         keywright.WithLogger(nil),
		"middleware":     keywright.WithMiddleware(nil),
		"user agent":     keywright.WithUserAgent("a\r\nb"),
		"config file":    keywright.WithConfigFile(""),
		"HTTP client":    keywright.WithHTTPClient(&http.Client{Transport: transport}),
		"WithConfigFile": keywright.WithConfigFile("/somewhere.ini"),
	} {
		_, err := keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithToken("some-token-0123456789"), o)
		var param *keywright.ParamError
		if strings.HasPrefix(field, "token") {
			_, err = keywright.NewAceData(keywright.WithoutEnvironment(), o)
		}
		require.ErrorAs(t, err, &param, field)
		assert.Equal(t, strings.TrimSpace(field), param.Field)
	}
	_, err := keywright.NewRicloud(keywright.WithToken("some-token-0123456789"), keywright.WithToken("some-token-0123456789"))
	require.ErrorContains(t, err, "given twice")
}

func TestBadJSON(t *testing.T) {
	t.Parallel()
	valid := `{"id":42,"resource":"key","organisation":1,"type":"standard","token":"the-new-token-0123456789","state":"active","date_created":"2018-10-01T17:04:34Z"}`
	with := func(member, raw string) string {
		var m map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(valid), &m))
		delete(m, member)
		b, err := json.Marshal(m)
		require.NoError(t, err)
		if raw == "" {
			return string(b)
		}
		return strings.TrimSuffix(string(b), "}") + `,"` + member + `":` + raw + "}"
	}
	cases := map[int]struct{ op, body, path string }{
		187: {"rotate", "", ""},
		188: {"rotate", "<html>sign in</html>", ""},
		189: {"rotate", "null", ""},
		190: {"rotate", "[]", ""},
		191: {"rotate", with("id", "1.5"), "id"},
		192: {"rotate", with("id", "1e400"), "id"},
		193: {"rotate", with("id", "99999999999999999999"), "id"},
		194: {"rotate", `{"id":{}}`, "id"},
		195: {"rotate", with("token", ""), "token"},
		196: {"rotate", with("token", "null"), "token"},
		197: {"rotate", with("token", `""`), "token"},
		198: {"rotate", with("token", "123"), "token"},
		199: {"rotate", with("token", "{}"), "token"},
		200: {"rotate", with("token", `"\u0000"`), "token"},
		201: {"rotate", with("token", "\"\xff\""), "token"},
		202: {"rotate", with("token", `"\ud800"`), "token"},
		203: {"rotate", with("token", `"the-old-token-0123456789"`), "token"},
		205: {"rotate", with("id", "43"), "id"},
		206: {"rotate", with("token", `"one-token-0123456789","token":"two-token-0123456789"`), "token"},
		207: {"rotate", strings.Replace(valid, `"token"`, `"Token"`, 1), "token"},
		211: {"list", "", ""},
		213: {"retrieve", with("date_created", `"2018-13-01"`), "date_created"},
		214: {"retrieve", with("date_created", `""`), "date_created"},
		216: {"list", `{"has_more":false}`, ""},
		217: {"list", "", ""},
		218: {"list", `{"resource":"list","data":[` + valid + `],"has_more":false,"url":"https://elsewhere.example/keys"}`, "url"},
	}
	for _, row := range badRows(t, "json") {
		tc, ok := cases[row.n]
		require.True(t, ok, "row %d: %s", row.n, row.input)
		t.Run(fmt.Sprint(row.n), func(t *testing.T) {
			t.Parallel()
			transport := &canned{200, []byte(tc.body)}
			rc := cannedRicloud(t, transport)
			var err error
			key := &keywright.Key{ID: 42, Token: keywright.NewSecret("the-old-token-0123456789")}
			switch {
			case row.n == 211:
				transport.body = make([]byte, 33<<20)
				_, err = rc.Key.List(t.Context(), keywright.KeyListParams{})
				require.ErrorIs(t, err, keywright.ErrTooLarge)
			case row.n == 217:
				transport.body = []byte(`{"data":[` + valid + `],"has_more":true}`)
				_, err = keywright.Collect(rc.Key.All(t.Context(), keywright.KeyListParams{}), 10)
				require.ErrorIs(t, err, keywright.ErrPaginationLoop)
			case tc.op == "list":
				_, err = rc.Key.List(t.Context(), keywright.KeyListParams{})
			case tc.op == "retrieve":
				_, err = rc.Key.Retrieve(t.Context(), 42)
			default:
				err = rc.Key.Rotate(t.Context(), key, keywright.KeyRotateParams{})
				require.ErrorIs(t, err, keywright.ErrOutcomeUnknown)
				assert.Equal(t, keywright.ResultLost, keywright.OutcomeOf(err))
				assert.Equal(t, "the-old-token-0123456789", key.Token.Reveal(), "*key is as it was")
			}
			var bad *keywright.DecodeError
			require.ErrorAs(t, err, &bad)
			assert.Equal(t, 200, bad.StatusCode)
			if tc.path != "" {
				assert.Equal(t, tc.path, bad.Path)
			}
			if tc.op == "rotate" && tc.body != "" {
				assert.Equal(t, tc.body, bad.Body().Reveal(), "what arrived is kept")
			}
			assert.NotContains(t, err.Error(), "0123456789", "no value is shown")
			assert.NotContains(t, err.Error(), "sign in")
		})
	}
}

func TestBadHeaders(t *testing.T) {
	t.Parallel()
	for _, row := range badRows(t, "header Retry-After") {
		t.Run(fmt.Sprint(row.n), func(t *testing.T) {
			t.Parallel()
			fake := keywrighttest.StartRicloud(t)
			fake.Inject(keywrighttest.Retry("key.current", 429, row.input))
			start := time.Now()
			_, err := ricloud(t, fake).Key.Current(t.Context())
			assert.Less(t, time.Since(start), 3*time.Second)
			if err != nil { // returned at once, with the hint
				var api *keywright.APIError
				require.ErrorAs(t, err, &api)
				assert.Greater(t, api.RetryAfter, time.Minute)
				assert.Equal(t, 1, fake.Count("key.current"))
				return
			}
			assert.Equal(t, 2, fake.Count("key.current"))
		})
	}
	t.Run("X-Request-Id", func(t *testing.T) {
		t.Parallel()
		rc := ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{
			Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 403, Header: http.Header{"X-Request-Id": {"\x1b[31mred\r\n" + strings.Repeat("x", 300)}}, Body: http.NoBody, Request: r}, nil
			}),
		}))
		_, err := rc.Key.Current(t.Context())
		var api *keywright.APIError
		require.ErrorAs(t, err, &api)
		assert.True(t, strings.HasPrefix(api.RequestID, "[31mredxxx"), api.RequestID)
		assert.Len(t, api.RequestID, 128)
	})
	t.Run("headers too large", func(t *testing.T) {
		t.Parallel()
		var connections atomic.Int64
		addr := rawListener(t, func(c net.Conn) {
			connections.Add(1)
			if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
				return
			}
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n")
			for i := range 12 << 10 {
				if _, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("a", 1000)); err != nil {
					return
				}
			}
		})
		rc := ricloudAt(t, "http://"+addr, "some-token-0123456789")
		_, err := rc.Key.List(t.Context(), keywright.KeyListParams{})
		require.ErrorIs(t, err, keywright.ErrTooLarge)
		assert.Equal(t, int64(1), connections.Load())
		err = rc.Key.Rotate(t.Context(), &keywright.Key{ID: 1}, keywright.KeyRotateParams{})
		require.ErrorIs(t, err, keywright.ErrTooLarge)
		assert.Equal(t, keywright.Ambiguous, keywright.OutcomeOf(err))
	})
	t.Run("token with a newline", func(t *testing.T) {
		t.Parallel()
		source := &reloading{tokens: []string{"to\nken"}}
		rc, _ := never(t)
		_ = rc
		rc = ricloudAt(t, "https://ricloud.example", "", keywright.WithTokenSource(source))
		_, err := rc.Key.Current(t.Context())
		require.ErrorIs(t, err, keywright.ErrInvalidToken)
		assert.Equal(t, keywright.NotSent, keywright.OutcomeOf(err))
	})
	assert.Len(t, badRows(t, "header"), 2)
	assert.Len(t, badRows(t, "header X-Request-Id"), 1)
	assert.Len(t, badRows(t, "header Location"), 1) // fault F22
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	google := strings.Replace(string(keywrighttest.Fixture("ricloud/storage_config_create_request_gs.json")), `"private_key":`, `"other":`, 1)
	var wrapped struct{ Credentials json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(google), &wrapped))
	cases := map[int]struct {
		path string
		want string // what the error names
	}{
		156: {filepath.Join(dir, "absent.ini"), "does not exist"},
		159: {file("open.json", "{}", 0o644), "mode 0644"},
		163: {file("empty.ini", "", 0o600), "is empty"},
		167: {file("twice.ini", "[api]\ntoken = abcdefgh12345678\n\n[api]\n", 0o600), ":4: section [api] given twice"},
		168: {file("unknown.ini", "[api]\ntokn = abcdefgh12345678\n", 0o600), `:2: unknown key "tokn" in [api]; did you mean "token"?`},
		169: {file("delta.ini", "[api]\ntoken = abcdefgh12345678\n\n[webhooks]\ndelta = 10m\n", 0o600), ":5: delta: want whole seconds"},
		170: {file("zero.ini", "[api]\ntoken = abcdefgh12345678\n\n[webhooks]\ndelta = 0\n", 0o600), ":5: delta: must be greater than 0"},
		172: {file("quote.ini", "[api]\n\n\ntoken = \"abcdefgh12345678\n", 0o600), ":4: quote is not closed"},
		173: {file("noequals.ini", "[api]\n\n\ntoken\n", 0o600), `:4: want "key = value"`},
		174: {file("large.ini", strings.Repeat("# comment\n", 120000), 0o600), "larger than 1 MiB"},
		177: {file("cut.json", `{"type":"service_account","private_key":"abc`, 0o600), "ends inside a value at byte 44"},
		179: {file("two.csv", "User name,Access key ID,Secret access key\na,AKIA0,s0\nb,AKIA1,s1\n", 0o600), "has 2 rows; want 1"},
		181: {file("account.json", string(wrapped.Credentials), 0o600), `field "private_key" is missing`},
	}
	for _, row := range badRows(t, "file") {
		if row.n == 160 {
			continue // TestForeignOwner
		}
		tc, ok := cases[row.n]
		require.True(t, ok, "row %d: %s", row.n, row.input)
		var err error
		if strings.HasSuffix(tc.path, ".ini") {
			_, err = keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithConfigFile(tc.path))
		} else {
			_, err = keywright.ReadCredentialsFile(tc.path)
		}
		var config *keywright.ConfigError
		require.ErrorAs(t, err, &config, "row %d", row.n)
		assert.Equal(t, tc.path, config.Source)
		assert.Contains(t, err.Error(), tc.want)
		assert.NotContains(t, err.Error(), "abcdefgh12345678")
	}
	for content, want := range map[string]string{
		"token = abcdefgh12345678":                                     "want a [section] first",
		"[api\ntoken = abcdefgh12345678":                               "section header is not closed",
		"[api]\ntoken = abcdefgh12345678\nTOKEN: other":                `key "token" given twice`,
		"[api]\ntoken = abcd efgh":                                     "contains a space",
		"[api]\ntoken = abcdefgh12345678\nurl = ftp://x":               "not allowed",
		"[api]\ntoken = abcdefgh12345678\nmax_retries = many":          "max_retries: want a whole number",
		"[api]\ntoken = abcdefgh12345678\nawait_for = 99":              "await_for: must be between 0 and 10",
		"[api]\nurl = https://ricloud.example\ntoken =":                "no token",
		"[other]\nnothing here\nx = y\n[api]\n token = indented first": "contains a space",
	} {
		_, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithConfigFile(file("more.ini", content, 0o600)))
		require.ErrorAs(t, err, new(*keywright.ConfigError), content)
		assert.Contains(t, err.Error(), want)
		assert.NotContains(t, err.Error(), "abcdefgh12345678")
	}
}

func TestBadEnvironment(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for name, tc := range map[string]struct {
		set    map[string]string
		unset  []string
		source string
		want   string
		target error
	}{
		"293": {set: map[string]string{"RICLOUD_TOKEN": "tok\n"}, source: "RICLOUD_TOKEN", want: "ends with a newline (1 trailing byte)", target: keywright.ErrInvalidToken},
		"295": {set: map[string]string{"RICLOUD_TOKEN": "abcdefgh12345678", "RICLOUD_DELTA": "10m"}, source: "RICLOUD_DELTA", want: "want whole seconds"},
		"296": {set: map[string]string{"RICLOUD_TOKEN": "abcdefgh12345678", "RICLOUD_MAX_RETRIES": "many"}, source: "RICLOUD_MAX_RETRIES", want: "want a whole number"},
		"297": {set: map[string]string{"RICLOUD_TOKEN": "abcdefgh12345678", "RICLOUD_AWAIT_FOR": "99"}, source: "RICLOUD_AWAIT_FOR", want: "must be between 0 and 10"},
		"298": {set: map[string]string{"RICLOUD_TOKEN": "abcdefgh12345678", "HTTPS_PROXY": "::bad::"}, source: "HTTPS_PROXY", want: "not a URL; refusing to connect without it"},
		"300": {set: map[string]string{"RICLOUD_TOKEN": "abcdefgh12345678", "SSL_CERT_FILE": filepath.Join(home, "none")}, source: "SSL_CERT_FILE", want: "file does not exist"},
		"301": {set: map[string]string{"HOME": ""}, source: "token", want: "no home directory; set the config path explicitly", target: keywright.ErrNoToken},

		"empty token": {set: map[string]string{"RICLOUD_TOKEN": ""}, source: "RICLOUD_TOKEN", want: "is set but empty"},
		"blank URL":   {set: map[string]string{"RICLOUD_TOKEN": "abcdefgh12345678", "RICLOUD_URL": " "}, source: "RICLOUD_URL", want: "is set but empty"},
		"bad URL":     {set: map[string]string{"RICLOUD_TOKEN": "abcdefgh12345678", "RICLOUD_URL": "http://ricloud.example"}, source: "RICLOUD_URL", want: `scheme "http" is not allowed`, target: keywright.ErrInvalidURL},
		"empty conf":  {set: map[string]string{"RICLOUD_TOKEN": "abcdefgh12345678", "RICLOUD_CONF": ""}, source: "RICLOUD_CONF", want: "is set but empty"},
		"no conf":     {set: map[string]string{"RICLOUD_CONF": filepath.Join(home, "none.ini")}, source: filepath.Join(home, "none.ini"), want: "file does not exist", target: os.ErrNotExist},
		"nothing":     {source: "token", want: "looked at RICLOUD_TOKEN, [api] token in " + filepath.Join(home, ".ricloud.ini"), target: keywright.ErrNoToken},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []string{"RICLOUD_TOKEN", "RICLOUD_URL", "RICLOUD_CONF", "RICLOUD_MAX_RETRIES", "RICLOUD_AWAIT_FOR", "RICLOUD_DELTA", "HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE"} {
				t.Setenv(v, "") // so that it is put back
				require.NoError(t, os.Unsetenv(v))
			}
			for k, v := range tc.set {
				t.Setenv(k, v)
			}
			_, err := keywright.NewRicloud()
			var config *keywright.ConfigError
			require.ErrorAs(t, err, &config)
			assert.Equal(t, tc.source, config.Source)
			assert.Contains(t, err.Error(), tc.want)
			assert.NotContains(t, err.Error(), "abcdefgh12345678")
			if tc.target != nil {
				require.ErrorIs(t, err, tc.target)
			}
		})
	}
	// Row 299 is TestProxyPassword.
	for _, row := range badRows(t, "env") {
		assert.Contains(t, []int{293, 295, 296, 297, 298, 299, 300, 301}, row.n)
	}
}
