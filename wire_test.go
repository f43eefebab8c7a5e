package keywright_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// goldenRequest and goldenResponse are the files of testdata/wire.
type goldenRequest struct {
	Method, Path, Query string
	Body                json.RawMessage
}

type goldenResponse struct {
	Status int
	Body   json.RawMessage
}

func golden(t testing.TB, op string) (req goldenRequest, resp goldenResponse) {
	t.Helper()
	for name, v := range map[string]any{"req": &req, "resp": &resp} {
		b, err := os.ReadFile("testdata/wire/" + op + "." + name + ".json")
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, v))
	}
	if string(resp.Body) == "null" {
		resp.Body = nil
	}
	return req, resp
}

const (
	goldenCredential  = keywright.CredentialID("c1d2e3f4-0000-4000-8000-000000000100")
	goldenApplication = keywright.ApplicationID("82f57141-0000-4000-8000-000000000010")
	goldenToken       = keywright.PlatformTokenID("3264f1aa-0000-4000-8000-000000000200")
	goldenTask        = keywright.TaskID("6f1d5c1e-6a0e-4c7c-9a25-3d2f3b0f6a11")
	goldenEvent       = keywright.EventID("5b0f7a4e-9a57-4a3f-8f59-0d6d1a6b7c90")
)

// wireCalls makes the golden request of every operation.
func wireCalls(t testing.TB, rc *keywright.Ricloud, ad *keywright.AceData) map[string]func(context.Context) (any, error) {
	t.Helper()
	var google struct {
		URL         string
		Credentials json.RawMessage
	}
	require.NoError(t, json.Unmarshal(keywrighttest.Fixture("ricloud/storage_config_create_request_gs.json"), &google))
	type ctx = context.Context
	return map[string]func(ctx) (any, error){
		"key.create": func(c ctx) (any, error) {
			return rc.Key.Create(c, keywright.KeyCreateParams{StorageConfig: keywright.Set[keywright.StorageConfigID](2), WebhookConfig: keywright.Null[keywright.WebhookConfigID]()})
		},
		"key.retrieve": func(c ctx) (any, error) { return rc.Key.Retrieve(c, 1) },
		"key.current":  func(c ctx) (any, error) { return rc.Key.Current(c) },
		"key.list": func(c ctx) (any, error) {
			return rc.Key.List(c, keywright.KeyListParams{Type: keywright.KeyTrial, State: keywright.KeyActive, Limit: 2, AfterID: 4})
		},
		"key.update": func(c ctx) (any, error) {
			return rc.Key.UpdateWithID(c, 1, keywright.KeyUpdateParams{
				StorageConfig: keywright.Null[keywright.StorageConfigID](), WebhookConfig: keywright.Set[keywright.WebhookConfigID](2),
				Config: keywright.Set(keywright.KeyConfig{}),
			})
		},
		"key.rotate": func(c ctx) (any, error) {
			return rc.Key.RotateWithID(c, 1, keywright.KeyRotateParams{Force: true})
		},
		"storage_config.create": func(c ctx) (any, error) {
			return rc.StorageConfig.Create(c, keywright.StorageConfigCreateParams{
				URL: google.URL, Credentials: keywright.GoogleCredentials(google.Credentials),
				SignedURLsEnabled: keywright.Set(true), SignedURLsExpiry: keywright.Set(time.Hour),
			})
		},
		"storage_config.retrieve": func(c ctx) (any, error) { return rc.StorageConfig.Retrieve(c, 2) },
		"storage_config.list": func(c ctx) (any, error) {
			return rc.StorageConfig.List(c, keywright.StorageConfigListParams{Limit: 10, BeforeID: 1})
		},
		"storage_config.update": func(c ctx) (any, error) {
			return rc.StorageConfig.UpdateWithID(c, 4, keywright.StorageConfigUpdateParams{
				Credentials:      keywright.AWSCredentials{UserName: "ricloud-bot", AccessKeyID: "AKIA0EXAMPLE", SecretAccessKey: keywright.NewSecret("example-secret-access-key")},
				SignedURLsExpiry: keywright.Null[time.Duration](),
			})
		},
		"storage_config.delete": func(c ctx) (any, error) { return nil, rc.StorageConfig.DeleteWithID(c, 4) },
		"storage_config.test":   func(c ctx) (any, error) { return rc.StorageConfig.TestWithID(c, 4) },
		"webhook_config.create": func(c ctx) (any, error) {
			return rc.WebhookConfig.Create(c, keywright.WebhookConfigCreateParams{URL: "https://www.mywebhook.com/webhooks/"})
		},
		"webhook_config.retrieve": func(c ctx) (any, error) { return rc.WebhookConfig.Retrieve(c, 2) },
		"webhook_config.list": func(c ctx) (any, error) {
			return rc.WebhookConfig.List(c, keywright.WebhookConfigListParams{})
		},
		"webhook_config.update": func(c ctx) (any, error) {
			return rc.WebhookConfig.UpdateWithID(c, 2, keywright.WebhookConfigUpdateParams{URL: keywright.Set("https://www.mywebhook.com/webhooks/")})
		},
		"webhook_config.delete": func(c ctx) (any, error) { return nil, rc.WebhookConfig.DeleteWithID(c, 2) },
		"webhook_config.test":   func(c ctx) (any, error) { return rc.WebhookConfig.TestWithID(c, 2) },
		"organisation.retrieve": func(c ctx) (any, error) { return rc.Organisation.Retrieve(c) },
		"organisation.update": func(c ctx) (any, error) {
			return rc.Organisation.Update(c, keywright.OrganisationUpdateParams{
				Name: keywright.Set("My Organisation"), StorageConfigDefault: keywright.Set[keywright.StorageConfigID](2), WebhookConfigDefault: keywright.Null[keywright.WebhookConfigID](),
			})
		},
		"task.retrieve": func(c ctx) (any, error) { return rc.Task.Retrieve(c, goldenTask) },
		"task.list": func(c ctx) (any, error) {
			return rc.Task.List(c, keywright.TaskListParams{Type: "webhook_config.test", State: keywright.TaskFailed, Limit: 1})
		},
		"event.retrieve": func(c ctx) (any, error) { return rc.Event.Retrieve(c, goldenEvent) },
		"event.list": func(c ctx) (any, error) {
			return rc.Event.List(c, keywright.EventListParams{Type: "task", Action: "succeeded", Limit: 1})
		},
		"credential.create": func(c ctx) (any, error) {
			return ad.Credential.Create(c, keywright.CredentialCreateParams{
				ApplicationID: goldenApplication, Name: keywright.Set("ci"), LimitedAmount: keywright.Set(12.5),
				ExpiredAt: keywright.Set(time.Date(2026, 12, 31, 1, 0, 0, 0, time.FixedZone("", 3600))), Host: keywright.Set("api.example"),
				ForUserID: keywright.Set("89518d07-0000-4000-8000-000000000002"), Tags: keywright.Set([]string{"ci"}),
				Metadata:      keywright.Set(map[string]any{"purpose": "grant"}),
				AllowedAPIIDs: keywright.Set([]string{"e4fbc3b6-0000-4000-8000-000000000030", "e4fbc3b6-0000-4000-8000-000000000031"}),
			})
		},
		"credential.retrieve": func(c ctx) (any, error) { return ad.Credential.Retrieve(c, goldenCredential) },
		"credential.list": func(c ctx) (any, error) {
			return ad.Credential.List(c, keywright.CredentialListParams{
				ApplicationIDs: []keywright.ApplicationID{goldenApplication}, Granted: keywright.Set(false),
				Ordering: keywright.NewestFirst, Limit: 100, Offset: 100,
			})
		},
		"credential.update": func(c ctx) (any, error) {
			return ad.Credential.UpdateWithID(c, goldenCredential, keywright.CredentialUpdateParams{
				Name: keywright.Set("limited"), LimitedAmount: keywright.Set(5.0), ExpiredAt: keywright.Null[time.Time](), AllowedAPIIDs: keywright.Set([]string{}),
			})
		},
		"credential.rotate": func(c ctx) (any, error) { return ad.Credential.RotateWithID(c, goldenCredential) },
		"credential.delete": func(c ctx) (any, error) { return nil, ad.Credential.DeleteWithID(c, goldenCredential) },
		"application.create": func(c ctx) (any, error) {
			return ad.Application.Create(c, keywright.ApplicationCreateParams{Type: keywright.ApplicationUsage, Scope: keywright.ApplicationGlobal})
		},
		"application.retrieve": func(c ctx) (any, error) { return ad.Application.Retrieve(c, goldenApplication) },
		"application.list": func(c ctx) (any, error) {
			return ad.Application.List(c, keywright.ApplicationListParams{Affiliations: []keywright.Affiliation{keywright.AffiliationOwner, keywright.AffiliationGranted}, Limit: 10})
		},
		"platform_token.me": func(c ctx) (any, error) { return ad.PlatformToken.Me(c) },
		"platform_token.create": func(c ctx) (any, error) {
			return ad.PlatformToken.Create(c, keywright.PlatformTokenCreateParams{
				Tags: keywright.Set([]string{"mcp:acedatacloud"}), Metadata: keywright.Set(map[string]any{"source": "mcp-acedatacloud"}),
			})
		},
		"platform_token.retrieve": func(c ctx) (any, error) { return ad.PlatformToken.Retrieve(c, goldenToken) },
		"platform_token.list": func(c ctx) (any, error) {
			return ad.PlatformToken.List(c, keywright.PlatformTokenListParams{UserIDs: []string{"89518d07-0000-4000-8000-000000000001"}, Tag: "ci"})
		},
		"platform_token.delete": func(c ctx) (any, error) { return nil, ad.PlatformToken.Delete(c, goldenToken) },
	}
}

// TestWire compares every operation with its golden pair, both ways: the
// request that goes out, and what becomes of each member of the answer.
func TestWire(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir("testdata/wire")
	require.NoError(t, err)
	ops := map[string]bool{}
	for _, e := range entries {
		ops[strings.TrimSuffix(strings.TrimSuffix(e.Name(), ".req.json"), ".resp.json")] = true
	}
	for op := range wireCalls(t, &keywright.Ricloud{}, &keywright.AceData{}) {
		require.True(t, ops[op], "no golden pair for %s", op)
		delete(ops, op)
	}
	require.Empty(t, ops, "golden pairs that no call makes")
	for op := range wireCalls(t, &keywright.Ricloud{}, &keywright.AceData{}) {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			want, resp := golden(t, op)
			var sent *http.Request
			var body []byte
			hc := keywright.WithHTTPClient(&http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
				sent = r
				if r.Body != nil {
					body, _ = io.ReadAll(r.Body)
					assert.EqualValues(t, len(body), r.ContentLength)
					assert.Nil(t, r.GetBody, "no transport may send the body again")
				}
				return &http.Response{StatusCode: resp.Status, Header: http.Header{}, Body: readCloser(string(resp.Body)), Request: r}, nil
			})})
			rc := ricloudAt(t, "https://ricloud.example/prefix/", "rc-token-0123456789", hc)
			ad := aceDataAt(t, "https://acedata.example/prefix/", "ad-token-0123456789", hc, keywright.WithUserAgent("app/1"))
			got, err := wireCalls(t, rc, ad)[op](t.Context())
			require.NoError(t, err)
			require.NotNil(t, sent)
			assert.Equal(t, want.Method, sent.Method)
			assert.Equal(t, "/prefix"+want.Path, sent.URL.EscapedPath())
			assert.Equal(t, want.Query, sent.URL.RawQuery)
			if want.Body == nil {
				assert.Empty(t, body)
				assert.Empty(t, sent.Header.Get("Content-Type"))
			} else {
				assert.JSONEq(t, string(want.Body), string(body))
				assert.Equal(t, "application/json", sent.Header.Get("Content-Type"))
			}
			assert.Equal(t, "application/json", sent.Header.Get("Accept"))
			auth, agent := "Token rc-token-0123456789", "keywright-go/"+keywright.Version
			if strings.HasPrefix(want.Path, "/api/") {
				auth, agent = "Bearer ad-token-0123456789", agent+" app/1"
			}
			assert.Equal(t, auth, sent.Header.Get("Authorization"))
			assert.Equal(t, agent, sent.Header.Get("User-Agent"))
			assert.Empty(t, sent.Header.Get("Idempotency-Key"))
			assert.Empty(t, sent.Header.Get("Ricloud-Await"))
			if resp.Body == nil || strings.HasSuffix(op, ".delete") {
				return
			}
			var members map[string]any
			require.NoError(t, json.Unmarshal(resp.Body, &members))
			if strings.HasSuffix(op, ".list") {
				items := reflect.ValueOf(got).Elem().FieldByName("Items")
				list, _ := members["data"].([]any)
				if list == nil {
					list = members["items"].([]any)
				}
				require.Equal(t, len(list), items.Len())
				for i, item := range list {
					compare(t, fmt.Sprintf("%s[%d]", op, i), item.(map[string]any), items.Index(i).Elem())
				}
				return
			}
			compare(t, op, members, reflect.ValueOf(got).Elem())
		})
	}
}

// compare checks that every member of an object is in the field that carries
// its name, or in Extra.
func compare(t *testing.T, where string, members map[string]any, v reflect.Value) {
	t.Helper()
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = v.Field(i)
		switch f.Name { // not encoded as they are
		case "SignedURLsExpiry":
			fields["signed_urls_expiry"] = v.Field(i)
		case "Data":
			fields["data"] = v.Field(i)
		case "Results":
			fields["results"] = v.Field(i)
		}
	}
	extra, _ := v.FieldByName("Extra").Interface().(map[string]keywright.Secret)
	for name, want := range members {
		at := where + "." + name
		f, ok := fields[name]
		switch {
		case name == "resource":
		case !ok:
			if want != nil {
				raw, err := json.Marshal(want)
				require.NoError(t, err)
				assert.JSONEq(t, string(raw), extra[name].Reveal(), at)
			}
		default:
			compareValue(t, at, want, f)
		}
	}
}

func compareValue(t *testing.T, at string, want any, f reflect.Value) {
	t.Helper()
	if f.Kind() == reflect.Pointer && !f.IsNil() {
		f = f.Elem()
	}
	switch got := f.Interface().(type) {
	case keywright.Secret:
		if s, ok := want.(string); ok {
			assert.Equal(t, s, got.Reveal(), at)
		} else if want == nil {
			assert.True(t, got.IsZero(), at)
		} else {
			raw, err := json.Marshal(want)
			require.NoError(t, err)
			assert.JSONEq(t, string(raw), got.Reveal(), at)
		}
		return
	case time.Time:
		if unix, ok := want.(float64); ok {
			assert.EqualValues(t, unix, got.Unix(), at)
			return
		}
		parsed, err := time.Parse(time.RFC3339, want.(string))
		require.NoError(t, err)
		assert.True(t, parsed.Equal(got), at)
		assert.Equal(t, time.UTC, got.Location(), at)
		return
	case time.Duration:
		assert.InDelta(t, want, got.Seconds(), 0, at)
		return
	}
	switch {
	case want == nil:
		assert.True(t, f.IsZero(), at)
	case f.Kind() == reflect.Struct:
		compare(t, at, want.(map[string]any), f)
	case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Pointer, f.Type() == reflect.TypeFor[[]keywright.Secret]():
		list, ok := want.([]any)
		if !ok {
			list = want.(map[string]any)["data"].([]any)
		}
		require.Equal(t, len(list), f.Len(), at)
		for i, item := range list {
			compareValue(t, at, item, f.Index(i))
		}
	default:
		raw, err := json.Marshal(f.Interface())
		require.NoError(t, err, at)
		expected, err := json.Marshal(want)
		require.NoError(t, err)
		assert.JSONEq(t, string(expected), string(raw), at)
	}
}

// TestListFilters sends every filter that the golden requests leave out.
func TestListFilters(t *testing.T) {
	t.Parallel()
	var query string
	hc := keywright.WithHTTPClient(&http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
		query = r.URL.RawQuery
		return &http.Response{StatusCode: 200, Body: readCloser(`{"data":[]}`), Request: r}, nil
	})})
	rc := ricloudAt(t, "https://ricloud.example", "some-token-0123456789", hc)
	ad := aceDataAt(t, "https://acedata.example", "some-token-0123456789", hc)
	ctx := t.Context()
	app2 := keywright.ApplicationID("82F57141-0000-4000-8000-000000000011")
	for want, call := range map[string]func() error{
		"before_id=3": func() error { return second(rc.Key.List(ctx, keywright.KeyListParams{BeforeID: 3})) },
		"action=test&after_id=a&before_id=b&date_created=2019-10-11&state=failed&type=webhook_config": func() error {
			return second(rc.Event.List(ctx, keywright.EventListParams{Type: "webhook_config", Action: "test", State: keywright.EventFailed, AfterID: "a", BeforeID: "b", DateCreated: "2019-10-11"}))
		},
		"after_id=a&before_id=b&poll=p&session=s&source_type=icloud.account": func() error {
			return second(rc.Task.List(ctx, keywright.TaskListParams{AfterID: "a", BeforeID: "b", SourceType: "icloud.account", Session: "s", Poll: "p"}))
		},
		"after_id=2&limit=7": func() error {
			return second(rc.StorageConfig.List(ctx, keywright.StorageConfigListParams{AfterID: 2, Limit: 7}))
		},
		"after_id=2&before_id=1": func() error {
			return second(rc.WebhookConfig.List(ctx, keywright.WebhookConfigListParams{AfterID: 2, BeforeID: 1}))
		},
		"application_id=82f57141-0000-4000-8000-000000000010&application_id=82f57141-0000-4000-8000-000000000011&granted=true&host=h1&host=h2&name=n+1&ordering=created_at&user_id=u1&user_id=u2": func() error {
			return second(ad.Credential.List(ctx, keywright.CredentialListParams{
				UserIDs: []string{"u1", "u2"}, ApplicationIDs: []keywright.ApplicationID{goldenApplication, app2}, Hosts: []string{"h1", "h2"},
				Names: []string{"n 1"}, Granted: keywright.Set(true), Ordering: keywright.OldestFirst,
			}))
		},
		"offset=5&ordering=-created_at&scope=Global&scope=Individual&service_id=38ecf158-0000-4000-8000-000000000020&type=Period&type=Usage&user_id=u1": func() error {
			return second(ad.Application.List(ctx, keywright.ApplicationListParams{
				UserIDs: []string{"u1"}, ServiceIDs: []string{"38ECF158-0000-4000-8000-000000000020"}, Offset: 5, Ordering: keywright.NewestFirst,
				Scopes: []keywright.ApplicationScope{keywright.ApplicationGlobal, keywright.ApplicationIndividual},
				Types:  []keywright.ApplicationType{keywright.ApplicationPeriod, keywright.ApplicationUsage},
			}))
		},
		"": func() error {
			return second(ad.Application.List(ctx, keywright.ApplicationListParams{}, keywright.WithAnyHolder()))
		},
		"limit=1&offset=2&user_id=u1": func() error {
			return second(ad.PlatformToken.List(ctx, keywright.PlatformTokenListParams{UserIDs: []string{"u1"}, Limit: 1, Offset: 2}))
		},
	} {
		require.NoError(t, call())
		assert.Equal(t, want, query)
	}
}

// TestFixturesDecode feeds every golden resource to the type it is of,
// including the ones that older versions of the providers sent.
func TestFixturesDecode(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]any{
		"ricloud/key.json": &keywright.Key{}, "ricloud/key_trial.json": &keywright.Key{}, "ricloud/key_upstream_test_values.json": &keywright.Key{},
		"ricloud/organisation_active.json": &keywright.Organisation{}, "ricloud/organisation_unconfigured.json": &keywright.Organisation{},
		"ricloud/storage_config_gs.json": &keywright.StorageConfig{}, "ricloud/webhook_config.json": &keywright.WebhookConfig{},
		"ricloud/task_webhook_config_test_succeeded.json": &keywright.Task{}, "ricloud/event_webhook_config_test.json": &keywright.Event{},
		"acedata/credential_token_full.json": &keywright.Credential{}, "acedata/credential_token_sparse.json": &keywright.Credential{},
		"acedata/credential_identity_full.json": &keywright.Credential{}, "acedata/credential_create_201.doc2024.json": &keywright.Credential{},
		"acedata/credential_rotate_200_identity.json": &keywright.Credential{}, "acedata/credential_update_cleared_200.json": &keywright.Credential{},
		"acedata/application_detail_200.json": &keywright.Application{}, "acedata/platform_token_create_201.json": &keywright.PlatformToken{},
		"acedata/platform_tokens_me_200.json": &keywright.User{},
	} {
		raw := keywrighttest.Fixture(name)
		require.NoError(t, json.Unmarshal(raw, v), name)
		var members map[string]any
		require.NoError(t, json.Unmarshal(raw, &members))
		compare(t, name, members, reflect.ValueOf(v).Elem())
		require.Error(t, json.Unmarshal([]byte(`{"id":[]}`), v), name)
		require.Error(t, v.(json.Unmarshaler).UnmarshalJSON([]byte(`[`)), name)
	}
	var masked keywright.Credential
	require.NoError(t, json.Unmarshal(keywrighttest.Fixture("acedata/credential_masked_future.json"), &masked))
	assert.True(t, masked.Masked)
	assert.True(t, masked.Token.IsZero(), "a mask is no token")
}

// FuzzResources feeds bodies to every type, as a read and as a create: nothing
// panics, a secret that is not usable is never a success, and what a read
// returns can be read again.
func FuzzResources(f *testing.F) {
	for _, name := range []string{"ricloud/key.json", "ricloud/key_list.json", "ricloud/organisation_active.json", "ricloud/event_list.json", "acedata/credential_token_full.json", "acedata/applications_list_200.json", "acedata/platform_tokens_list_200.json"} {
		f.Add(keywrighttest.Fixture(name))
	}
	f.Add([]byte(`{"id":{"id":"1"},"token":"\ud800"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		transport := &canned{200, body}
		rc := cannedRicloud(t, transport)
		ad := aceDataAt(t, "https://acedata.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{Transport: transport}))
		ctx := t.Context()
		for op, call := range wireCalls(t, rc, ad) {
			if strings.HasSuffix(op, ".delete") {
				continue
			}
			v, err := call(ctx)
			if err != nil {
				if strings.ContainsAny(err.Error(), "\n\x00") {
					t.Fatalf("%s: not one clean line: %q", op, err)
				}
				continue
			}
			switch v := v.(type) {
			case *keywright.Key:
				if (op == "key.create" || op == "key.rotate") && v.Token.IsZero() {
					t.Fatalf("%s succeeded without a token", op)
				}
			case *keywright.Credential:
				if (op == "credential.create" || op == "credential.rotate") && v.Token.IsZero() && v.Password.IsZero() {
					t.Fatalf("%s succeeded without a secret", op)
				}
			}
		}
	})
}
