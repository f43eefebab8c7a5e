package keywright_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// mutation is an operation that must never be sent twice.
type mutation struct {
	op   string
	call func(context.Context) error
}

// mutations prepares resources at both fakes and returns every operation that
// creates, rotates, updates or tests.
func mutations(t *testing.T, fake *keywrighttest.Ricloud, ace *keywrighttest.AceData, rc *keywright.Ricloud, ad *keywright.AceData) []mutation {
	t.Helper()
	ctx := t.Context()
	setup, aceSetup := ricloud(t, fake), aceData(t, ace)
	s3 := keywright.AWSCredentials{AccessKeyID: "AKIA0", SecretAccessKey: keywright.NewSecret("some-secret")}
	storage, err := setup.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{URL: "s3://bucket", Credentials: s3})
	require.NoError(t, err)
	hook, err := setup.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/"})
	require.NoError(t, err)
	app := keywright.ApplicationID(ace.ApplicationID())
	credential, err := aceSetup.Credential.Create(ctx, keywright.CredentialCreateParams{ApplicationID: app})
	require.NoError(t, err)
	fake.AddKeys(1)
	service := ace.ServiceID()
	return []mutation{
		{"key.create", func(c context.Context) error { return second(rc.Key.Create(c, keywright.KeyCreateParams{})) }},
		{"key.update", func(c context.Context) error {
			return second(rc.Key.UpdateWithID(c, 2, keywright.KeyUpdateParams{WebhookConfig: keywright.Set(hook.ID)}))
		}},
		{"key.rotate", func(c context.Context) error {
			return second(rc.Key.RotateWithID(c, 2, keywright.KeyRotateParams{}))
		}},
		{"storage_config.create", func(c context.Context) error {
			return second(rc.StorageConfig.Create(c, keywright.StorageConfigCreateParams{URL: "s3://other", Credentials: s3}))
		}},
		{"storage_config.update", func(c context.Context) error {
			return second(rc.StorageConfig.UpdateWithID(c, storage.ID, keywright.StorageConfigUpdateParams{URL: keywright.Set("s3://moved")}))
		}},
		{"storage_config.test", func(c context.Context) error { return second(rc.StorageConfig.TestWithID(c, storage.ID)) }},
		{"webhook_config.create", func(c context.Context) error {
			return second(rc.WebhookConfig.Create(c, keywright.WebhookConfigCreateParams{URL: "https://other.example.com/"}))
		}},
		{"webhook_config.update", func(c context.Context) error {
			return second(rc.WebhookConfig.UpdateWithID(c, hook.ID, keywright.WebhookConfigUpdateParams{URL: keywright.Set("https://moved.example.com/")}))
		}},
		{"webhook_config.test", func(c context.Context) error { return second(rc.WebhookConfig.TestWithID(c, hook.ID)) }},
		{"organisation.update", func(c context.Context) error {
			return second(rc.Organisation.Update(c, keywright.OrganisationUpdateParams{Name: keywright.Set("Moved")}))
		}},
		{"credential.create", func(c context.Context) error {
			return second(ad.Credential.Create(c, keywright.CredentialCreateParams{ApplicationID: app, Name: keywright.Set("new")}))
		}},
		{"credential.update", func(c context.Context) error {
			return second(ad.Credential.UpdateWithID(c, credential.ID, keywright.CredentialUpdateParams{Name: keywright.Set("moved")}))
		}},
		{"credential.rotate", func(c context.Context) error { return ad.Credential.Rotate(c, ptr(*credential)) }},
		{"application.create", func(c context.Context) error {
			return second(ad.Application.Create(c, keywright.ApplicationCreateParams{ServiceID: service}))
		}},
		{"platform_token.create", func(c context.Context) error {
			return second(ad.PlatformToken.Create(c, keywright.PlatformTokenCreateParams{}))
		}},
	}
}

func ptr[T any](v T) *T { return &v }

// overHTTP2 puts a fake behind a server that speaks HTTP/2, and returns its
// URL and a client of it.
func overHTTP2(t *testing.T, fake http.Handler) (url string, client keywright.Option) {
	t.Helper()
	srv := httptest.NewUnstartedServer(fake)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL, keywright.WithHTTPClient(&http.Client{Transport: srv.Client().Transport})
}

// TestSentOnce loses the answer to every mutation of both providers after the
// change is applied, in every way, over the SDK's own transport and over HTTP/2
// on a caller's client: each is on the wire once, its outcome is unknown, and
// reading back sends nothing again.
func TestSentOnce(t *testing.T) {
	t.Parallel()
	after := keywrighttest.AfterApply
	for name, fault := range map[string]keywrighttest.Fault{
		"dropped":       {When: after, Do: keywrighttest.Drop},
		"reset":         {When: after, Do: keywrighttest.Reset},
		"stalled":       {When: after, Do: keywrighttest.Stall},
		"cut":           {When: after, Do: keywrighttest.Cut},
		"dripping":      {When: after, Do: keywrighttest.Drip},
		"500":           {When: after, Status: 500, Body: "<html>"},
		"503 with hint": {When: after, Status: 503, Header: http.Header{"Retry-After": {"1"}}},
		"504":           {When: after, Status: 504},
		"408":           {When: after, Status: 408},
		"unreadable":    {When: after, Edit: func([]byte) []byte { return []byte("<html>sign in</html>") }},
		"empty object":  {When: after, Edit: func([]byte) []byte { return []byte("{}") }},
	} {
		for _, wire := range []string{"own transport", "HTTP/2"} {
			t.Run(name+" "+wire, func(t *testing.T) {
				t.Parallel()
				fake, ace := keywrighttest.StartRicloud(t), keywrighttest.StartAceData(t)
				opts := []keywright.Option{}
				if fault.Do == keywrighttest.Stall || fault.Do == keywrighttest.Drip {
					opts = append(opts, brief())
				}
				rcURL, adURL, rcOpts, adOpts := fake.URL(), ace.URL(), opts, opts
				if wire == "HTTP/2" {
					var rcClient, adClient keywright.Option
					rcURL, rcClient = overHTTP2(t, fake)
					adURL, adClient = overHTTP2(t, ace)
					rcOpts, adOpts = append(opts, rcClient), append(opts, adClient)
				}
				rc := ricloudAt(t, rcURL, fake.Token(), rcOpts...)
				ad := aceDataAt(t, adURL, ace.Token(), adOpts...)
				for _, m := range mutations(t, fake, ace, rc, ad) {
					fake.Forget()
					ace.Forget()
					f := fault
					f.Op = m.op
					fake.Inject(f)
					ace.Inject(f)
					err := m.call(t.Context())
					require.ErrorIs(t, err, keywright.ErrOutcomeUnknown, m.op)
					// A busy provider may read the request after the client gave up.
					require.Eventually(t, func() bool { return fake.Applied(m.op)+ace.Applied(m.op) == 1 }, 10*time.Second, 5*time.Millisecond, m.op)
					assert.Equal(t, 1, fake.Count(m.op)+ace.Count(m.op), "%s: on the wire", m.op)
					fake.ClearFaults()
					ace.ClearFaults()
					var lost recoverer
					require.ErrorAs(t, err, &lost, m.op)
					found, err := lost.Recover(t.Context())
					require.NoError(t, err, m.op)
					assert.NotEqual(t, keywright.NotApplied, found.Outcome, m.op)
					assert.NotEmpty(t, found.Candidates, m.op)
					assert.Equal(t, 1, fake.Count(m.op)+ace.Count(m.op), "%s: reading back sends nothing again", m.op)
					assert.Equal(t, 1, fake.Applied(m.op)+ace.Applied(m.op), "%s: applied", m.op)
					if strings.HasSuffix(m.op, ".create") || strings.HasSuffix(m.op, ".test") {
						continue // several may fit: the clocks of one second
					}
					assert.Len(t, found.Candidates, 1, m.op)
				}
			})
		}
	}
}
