package keywright_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

func TestKeyService(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]keywrighttest.Option{
		"today": nil, "older shapes": {keywrighttest.WithOlderShapes()}, "nested references": {keywrighttest.WithNestedReferences()},
		"text ids": {keywrighttest.WithTextIDs()}, "masked": {keywrighttest.WithMaskedTokens()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			fake := keywrighttest.StartRicloud(t, opts...)
			rc := ricloud(t, fake)
			storage, err := rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{URL: "s3://bucket", Credentials: keywright.AWSCredentials{AccessKeyID: "AKIA0", SecretAccessKey: keywright.NewSecret("some-secret")}})
			require.NoError(t, err)
			key, err := rc.Key.Create(ctx, keywright.KeyCreateParams{StorageConfig: keywright.Set(storage.ID)})
			require.NoError(t, err)
			assert.Equal(t, storage.ID, *key.StorageConfig)
			assert.Nil(t, key.WebhookConfig)
			assert.Equal(t, []string{key.Token.Reveal()}, fake.AcceptedTokens(int64(key.ID)))
			require.NoError(t, rc.Key.Update(ctx, key, keywright.KeyUpdateParams{StorageConfig: keywright.Null[keywright.StorageConfigID]()}))
			assert.Nil(t, key.StorageConfig, "null returns it to the default")
			old := fake.TokenOf(int64(key.ID))
			require.NoError(t, rc.Key.Rotate(ctx, key, keywright.KeyRotateParams{}))
			assert.Equal(t, []string{key.Token.Reveal(), old}, fake.AcceptedTokens(int64(key.ID)), "both in the overlap")
			rotated, err := rc.Key.RotateWithID(ctx, key.ID, keywright.KeyRotateParams{Force: true})
			require.NoError(t, err)
			assert.Equal(t, []string{rotated.Token.Reveal()}, fake.AcceptedTokens(int64(key.ID)), "force")
			got, err := rc.Key.Retrieve(ctx, key.ID)
			require.NoError(t, err)
			assert.Equal(t, name == "masked", got.Masked)
			assert.Equal(t, name == "masked", got.Token.IsZero())
			org, err := rc.Organisation.Retrieve(ctx)
			require.NoError(t, err)
			assert.Equal(t, got.OrganisationID, org.ID)
			assert.Len(t, org.StorageConfigs, 1)
			org, err = rc.Organisation.Update(ctx, keywright.OrganisationUpdateParams{Name: keywright.Set("New Name"), StorageConfigDefault: keywright.Set(storage.ID)})
			require.NoError(t, err)
			assert.Equal(t, "new-name", org.Slug)
			assert.Equal(t, storage.ID, *org.StorageConfigDefault)
			require.NoError(t, rc.StorageConfig.Delete(ctx, storage))
			require.ErrorIs(t, rc.StorageConfig.Delete(ctx, storage), keywright.ErrNotFound, "a first 404 is an error")
			assert.True(t, got.Type.Known() && got.State.Known() && storage.State.Known() && storage.Type.Known() && org.State.Known())
		})
	}
}

// Whatever else an answer to a rotation is like, its token reaches the caller.
func TestRotateAlwaysDeliversTheToken(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"no more than a token": `{"token":"a-new-token-0123456789"}`,
		"unknown members":      `{"id":1,"token":"a-new-token-0123456789","grace":{"until":null,"list":[1,{}]},"x":"y"}`,
		"nested objects":       `{"id":1,"organisation":{"id":1,"name":"x"},"storage_config":{"id":"2","resource":"storage_config"},"webhook_config":{"id":3},"token":"a-new-token-0123456789"}`,
		"ids as text":          `{"id":"1","organisation":"1","storage_config":"2","webhook_config":null,"token":"a-new-token-0123456789"}`,
		"wrong shapes":         `{"id":1,"type":7,"config":"none","state":null,"date_created":"yesterday","date_expires":false,"token":"a-new-token-0123456789"}`,
		"escaped name":         `{"id":1,"t\u006fken":"a-new-token-0123456789"}`,
		"white space":          " \r\n{ \"id\" : 1 ,\t\"token\" : \"a-new-token-0123456789\" } \n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rc := ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{
				Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: 202, Header: http.Header{"Content-Type": {"text/html"}}, Body: readCloser(body), Request: r}, nil
				}),
			}))
			made := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
			key := &keywright.Key{ID: 1, OrganisationID: 1, State: keywright.KeyActive, Token: keywright.NewSecret("the-old-token-0123456789"), DateCreated: made}
			require.NoError(t, rc.Key.Rotate(t.Context(), key, keywright.KeyRotateParams{}))
			assert.Equal(t, "a-new-token-0123456789", key.Token.Reveal())
			assert.Equal(t, keywright.KeyID(1), key.ID)
			if name == "no more than a token" {
				assert.Equal(t, made, key.DateCreated, "the rest is as it was")
			}
			if name == "wrong shapes" {
				assert.Equal(t, `"yesterday"`, key.Extra["date_created"].Reveal())
			}
			got, err := rc.Key.RotateWithID(t.Context(), 1, keywright.KeyRotateParams{})
			require.NoError(t, err)
			assert.Equal(t, keywright.KeyID(1), got.ID)
		})
	}
}

// Rotating the key that the client authenticates with.
func TestRotateOwnKey(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fake := keywrighttest.StartRicloud(t)
	source := keywright.NewRotatingToken(keywright.NewSecret(fake.Token()))
	rc := ricloudAt(t, fake.URL(), "", keywright.WithTokenSource(source))
	for range 3 {
		key, err := rc.Key.Current(ctx)
		require.NoError(t, err)
		require.NoError(t, rc.Key.Rotate(ctx, key, keywright.KeyRotateParams{Force: true}))
		source.Swap(key.Token)
	}
	_, err := rc.Key.Current(ctx)
	require.NoError(t, err)
	fake.Clock().Advance(7 * time.Hour)
	_, err = rc.Key.Current(ctx)
	require.NoError(t, err)
}

func TestGracePeriod(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	clock := new(keywrighttest.Clock)
	fake := keywrighttest.StartRicloud(t, keywrighttest.WithClock(clock))
	old := ricloud(t, fake)
	key, err := old.Key.Current(ctx)
	require.NoError(t, err)
	require.NoError(t, old.Key.Rotate(ctx, key, keywright.KeyRotateParams{}))
	clock.Advance(6*time.Hour - time.Second)
	_, err = old.Key.Current(ctx)
	require.NoError(t, err, "the old token works until the grace period ends")
	clock.Advance(2 * time.Second)
	_, err = old.Key.Current(ctx)
	require.ErrorIs(t, err, keywright.ErrUnauthorized)
}

// Every create whose answer is lost is found again, and only that one.
func TestRecoverCreates(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, shift := range map[string]time.Duration{"clocks agree": 0, "provider a day ahead": 24 * time.Hour, "provider a day behind": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := new(keywrighttest.Clock)
			clock.Advance(shift)
			fake := keywrighttest.StartRicloud(t, keywrighttest.WithClock(clock))
			ace := keywrighttest.StartAceData(t, keywrighttest.WithClock(clock))
			rc, ad := ricloud(t, fake), aceData(t, ace)
			app := keywright.ApplicationID(ace.ApplicationID())
			s3 := keywright.AWSCredentials{AccessKeyID: "AKIA0", SecretAccessKey: keywright.NewSecret("some-secret")}
			service := ace.ServiceID()
			// What was there before must not be taken for ours.
			ace.AddCredentials(3)
			fake.AddKeys(3)
			clock.Advance(time.Minute)
			for op, call := range map[string]func() (any, error){
				"key.create": func() (any, error) { return rc.Key.Create(ctx, keywright.KeyCreateParams{}) },
				"storage_config.create": func() (any, error) {
					return rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{URL: "s3://bucket", Credentials: s3})
				},
				"webhook_config.create": func() (any, error) {
					return rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/"})
				},
				"credential.create": func() (any, error) {
					return ad.Credential.Create(ctx, keywright.CredentialCreateParams{ApplicationID: app, Name: keywright.Set("ours")})
				},
				"application.create": func() (any, error) {
					return ad.Application.Create(ctx, keywright.ApplicationCreateParams{ServiceID: service})
				},
				"platform_token.create": func() (any, error) {
					return ad.PlatformToken.Create(ctx, keywright.PlatformTokenCreateParams{UserID: keywright.Set(ace.UserID())})
				},
			} {
				f := keywrighttest.Fault{Op: op, When: keywrighttest.AfterApply, Do: keywrighttest.Drop}
				fake.Inject(f)
				ace.Inject(f)
				_, err := call()
				require.ErrorIs(t, err, keywright.ErrOutcomeUnknown, op)
				var lost recoverer
				require.ErrorAs(t, err, &lost)
				found, err := lost.Recover(ctx)
				require.NoError(t, err, op)
				require.Equal(t, keywright.Applied.String(), found.Outcome.String(), op)
				require.NotNil(t, found.Resource(), op)
				switch v := found.Resource().(type) {
				case *keywright.Key:
					assert.Equal(t, keywright.KeyID(5), v.ID)
				case *keywright.Credential:
					assert.Equal(t, "ours", v.Name)
					assert.Equal(t, ace.AcceptedTokens(string(v.ID)), []string{v.Token.Reveal()})
				case *keywright.Application:
					assert.Equal(t, service, v.ServiceID)
				}
				fake.ClearFaults()
				ace.ClearFaults()
			}
			hook, err := rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://tests.example.com/"})
			require.NoError(t, err)
			clock.Advance(time.Minute)
			fake.Inject(keywrighttest.Fault{Op: "webhook_config.test", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
			_, err = rc.WebhookConfig.Test(ctx, hook)
			require.ErrorIs(t, err, keywright.ErrOutcomeUnknown)
			assert.Equal(t, 1, fake.Count("webhook_config.test"))
			var lost recoverer
			require.ErrorAs(t, err, &lost)
			found, err := lost.Recover(ctx)
			require.NoError(t, err)
			require.IsType(t, &keywright.Task{}, found.Resource())
			ace.AddCredentials(1)
		})
	}
}

func TestRecoverUpdates(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, fault := range map[string]struct {
		f    keywrighttest.Fault
		want keywright.Outcome
	}{
		"applied":     {keywrighttest.Fault{When: keywrighttest.AfterApply, Do: keywrighttest.Drop}, keywright.Applied},
		"result lost": {keywrighttest.Fault{When: keywrighttest.AfterApply, Do: keywrighttest.Cut}, keywright.Applied},
		"not applied": {keywrighttest.Fault{Do: keywrighttest.Drop}, keywright.NotApplied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, ace := keywrighttest.StartRicloud(t), keywrighttest.StartAceData(t)
			rc, ad := ricloud(t, fake), aceData(t, ace)
			s3 := keywright.AWSCredentials{AccessKeyID: "AKIA0", SecretAccessKey: keywright.NewSecret("some-secret")}
			storage, err := rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{URL: "s3://bucket", Credentials: s3})
			require.NoError(t, err)
			hook, err := rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/"})
			require.NoError(t, err)
			credential, err := ad.Credential.Create(ctx, keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(ace.ApplicationID())})
			require.NoError(t, err)
			s3.UserName = "bot"
			fault.f.Times = -1
			for op, call := range map[string]func() error{
				"key.update": func() error {
					return rc.Key.Update(ctx, &keywright.Key{ID: 1}, keywright.KeyUpdateParams{WebhookConfig: keywright.Set(hook.ID), Config: keywright.Set(keywright.KeyConfig{PublishSourceFiles: true})})
				},
				"storage_config.update": func() error {
					return rc.StorageConfig.Update(ctx, storage, keywright.StorageConfigUpdateParams{
						URL: keywright.Set("s3://other"), Credentials: s3, SignedURLsEnabled: keywright.Set(true), SignedURLsExpiry: keywright.Set(time.Hour),
					})
				},
				"webhook_config.update": func() error {
					return rc.WebhookConfig.Update(ctx, hook, keywright.WebhookConfigUpdateParams{URL: keywright.Set("https://other.example.com/")})
				},
				"organisation.update": func() error {
					return second(rc.Organisation.Update(ctx, keywright.OrganisationUpdateParams{Name: keywright.Set("Other"), WebhookConfigDefault: keywright.Set(hook.ID)}))
				},
				"credential.update": func() error {
					return ad.Credential.Update(ctx, credential, keywright.CredentialUpdateParams{
						Name: keywright.Set("new"), LimitedAmount: keywright.Set(5.5), AllowedAPIIDs: keywright.Set([]string{}),
						ExpiredAt: keywright.Set(time.Now().Add(time.Hour)),
					})
				},
			} {
				t.Run(op, func(t *testing.T) {
					f := fault.f
					f.Op = op
					fake.Inject(f)
					ace.Inject(f)
					err := call()
					require.ErrorIs(t, err, keywright.ErrOutcomeUnknown)
					var lost recoverer
					require.ErrorAs(t, err, &lost)
					found, err := lost.Recover(ctx)
					require.NoError(t, err)
					assert.Equal(t, fault.want.String(), found.Outcome.String())
					assert.NotNil(t, found.Resource())
				})
			}
		})
	}
}

// Where the provider does not show what was asked for, nobody can tell.
func TestRecoverUpdatesThatAreNotShown(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fake := keywrighttest.StartRicloud(t, keywrighttest.WithOlderShapes(), keywrighttest.WithMaskedTokens())
	rc := ricloud(t, fake)
	s3 := keywright.AWSCredentials{AccessKeyID: "AKIA0", SecretAccessKey: keywright.NewSecret("some-secret")}
	storage, err := rc.StorageConfig.Create(ctx, keywright.StorageConfigCreateParams{URL: "s3://bucket", Credentials: s3})
	require.NoError(t, err)
	for name, call := range map[string]func() error{
		"credentials": func() error {
			return second(rc.StorageConfig.UpdateWithID(ctx, storage.ID, keywright.StorageConfigUpdateParams{Credentials: s3}))
		},
		"signed URLs": func() error {
			return second(rc.StorageConfig.UpdateWithID(ctx, storage.ID, keywright.StorageConfigUpdateParams{SignedURLsEnabled: keywright.Set(true)}))
		},
		"config of a key": func() error {
			return second(rc.Key.UpdateWithID(ctx, 1, keywright.KeyUpdateParams{Config: keywright.Set(keywright.KeyConfig{PublishSourceFiles: true})}))
		},
		"config of the organisation": func() error {
			return second(rc.Organisation.Update(ctx, keywright.OrganisationUpdateParams{Config: keywright.Set(keywright.KeyConfig{})}))
		},
	} {
		for _, op := range []string{"storage_config.update", "key.update", "organisation.update"} {
			fake.Inject(keywrighttest.Fault{Op: op, When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
		}
		err := call()
		fake.ClearFaults()
		var lost recoverer
		require.ErrorAs(t, err, &lost, name)
		found, err := lost.Recover(ctx)
		require.NoError(t, err)
		assert.Equal(t, keywright.Ambiguous.String(), found.Outcome.String(), name)
	}
	ace := keywrighttest.StartAceData(t)
	ad := aceData(t, ace)
	c, err := ad.Credential.Create(ctx, keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(ace.ApplicationID()), Name: keywright.Set("x")})
	require.NoError(t, err)
	ace.Inject(keywrighttest.Fault{Op: "credential.update", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
	var lost recoverer
	require.ErrorAs(t, ad.Credential.Update(ctx, c, keywright.CredentialUpdateParams{Name: keywright.Set("")}), &lost)
	found, err := lost.Recover(ctx)
	require.NoError(t, err)
	assert.Equal(t, keywright.Applied, found.Outcome, "an empty name is no name")
}

// Members whose shape nobody documents never cost a read.
func TestUndocumentedShapesAreTolerated(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		v    json.Unmarshaler
		body string
	}{
		"api_version":      {&keywright.Organisation{}, `{"id":1,"api_version":3}`},
		"config value":     {&keywright.Key{}, `{"id":1,"config":{"publish_source_files":"all"}}`},
		"config list":      {&keywright.Key{}, `{"id":1,"config":[]}`},
		"permissions id":   {&keywright.Organisation{}, `{"id":1,"permissions":7}`},
		"configs by id":    {&keywright.Organisation{}, `{"id":1,"storage_configs":[4,"5"],"webhook_configs":{"data":[6]}}`},
		"error object":     {&keywright.Task{}, `{"id":"t","error":{"code":"x"}}`},
		"application id":   {&keywright.Credential{}, `{"id":"c","application":"a"}`},
		"service id":       {&keywright.Application{}, `{"id":"a","service":"s"}`},
		"metadata as text": {&keywright.Credential{}, `{"id":"c","metadata":"x"}`},
	} {
		require.NoError(t, tc.v.UnmarshalJSON([]byte(tc.body)), name)
		if org, ok := tc.v.(*keywright.Organisation); ok && name == "configs by id" {
			assert.Equal(t, keywright.StorageConfigID(5), org.StorageConfigs[1].ID)
			assert.Equal(t, keywright.WebhookConfigID(6), org.WebhookConfigs[0].ID)
		}
	}
}

func TestMasksAreNoSecrets(t *testing.T) {
	t.Parallel()
	for _, mask := range []string{"3f2a***9c1d", "3f**", "abcd…(64 chars)", "••••", "********", "[REDACTED]", "abcdef...", "a*c"} {
		body, err := json.Marshal(map[string]any{"id": 1, "token": mask})
		require.NoError(t, err)
		rc := cannedRicloud(t, &canned{200, body})
		_, err = rc.Key.RotateWithID(t.Context(), 1, keywright.KeyRotateParams{})
		assert.Equal(t, keywright.ResultLost, keywright.OutcomeOf(err), mask)
		key, err := rc.Key.Retrieve(t.Context(), 1)
		require.NoError(t, err)
		assert.True(t, key.Masked && key.Token.IsZero(), mask)
	}
}

func TestRecoverRotations(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	drop := func(op string) keywrighttest.Fault {
		return keywrighttest.Fault{Op: op, When: keywrighttest.AfterApply, Do: keywrighttest.Drop}
	}
	recover := func(t *testing.T, err error) *keywright.Recovery {
		t.Helper()
		var lost recoverer
		require.ErrorAs(t, err, &lost)
		found, err := lost.Recover(ctx)
		require.NoError(t, err)
		return found
	}
	t.Run("key by id", func(t *testing.T) {
		t.Parallel()
		fake := keywrighttest.StartRicloud(t)
		fake.AddKeys(1)
		rc := ricloud(t, fake)
		fake.Inject(drop("key.rotate"))
		_, err := rc.Key.RotateWithID(ctx, 2, keywright.KeyRotateParams{})
		found := recover(t, err)
		assert.Equal(t, keywright.Ambiguous, found.Outcome, "nothing to compare with")
		assert.Equal(t, fake.TokenOf(2), found.Resource().(*keywright.Key).Token.Reveal(), "but the token is good")
		f := drop("key.rotate")
		f.Do = keywrighttest.Cut
		fake.Inject(f)
		_, err = rc.Key.RotateWithID(ctx, 2, keywright.KeyRotateParams{})
		assert.Equal(t, keywright.Applied, recover(t, err).Outcome, "the provider said 200")
	})
	t.Run("own key, forced", func(t *testing.T) {
		t.Parallel()
		fake := keywrighttest.StartRicloud(t)
		rc := ricloud(t, fake)
		fake.Inject(drop("key.rotate"))
		_, err := rc.Key.RotateWithID(ctx, 1, keywright.KeyRotateParams{Force: true})
		var lost recoverer
		require.ErrorAs(t, err, &lost)
		found, err := lost.Recover(ctx)
		require.ErrorIs(t, err, keywright.ErrUnauthorized, "locked out, and told so")
		assert.Equal(t, keywright.Ambiguous, found.Outcome)
	})
	t.Run("credentials", func(t *testing.T) {
		t.Parallel()
		fake := keywrighttest.StartAceData(t)
		ad := aceData(t, fake)
		for _, app := range []string{fake.ApplicationID(), fake.ProxyApplicationID()} {
			c, err := ad.Credential.Create(ctx, keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(app)})
			require.NoError(t, err)
			before := *c
			fake.Inject(drop("credential.rotate"))
			found := recover(t, ad.Credential.Rotate(ctx, c))
			assert.Equal(t, before, *c, "as it was")
			assert.Equal(t, keywright.Applied, found.Outcome)
			got := found.Resource().(*keywright.Credential)
			assert.Equal(t, fake.AcceptedTokens(string(c.ID)), []string{got.Token.Reveal() + got.Password.Reveal()})
			require.NoError(t, ad.Credential.Rotate(ctx, c))
			assert.Equal(t, fake.AcceptedTokens(string(c.ID)), []string{c.Token.Reveal() + c.Password.Reveal()})
		}
	})
	t.Run("masked", func(t *testing.T) {
		t.Parallel()
		fake := keywrighttest.StartAceData(t, keywrighttest.WithMaskedTokens())
		ad := aceData(t, fake)
		c, err := ad.Credential.Create(ctx, keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(fake.ApplicationID())})
		require.NoError(t, err)
		fake.Inject(drop("credential.rotate"))
		found := recover(t, ad.Credential.Rotate(ctx, c))
		assert.Equal(t, keywright.Ambiguous, found.Outcome, "a mask cannot be compared")
		f := drop("credential.rotate")
		f.Do = keywrighttest.Cut
		fake.Inject(f)
		assert.Equal(t, keywright.ResultLost, recover(t, ad.Credential.Rotate(ctx, c)).Outcome, "rotated, and the secret cannot be read")
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		fake := keywrighttest.StartRicloud(t)
		rc := ricloud(t, fake)
		fake.Inject(keywrighttest.Fault{Op: "key.rotate", Do: keywrighttest.Drop})
		key, err := rc.Key.Current(ctx)
		require.NoError(t, err)
		err = rc.Key.Rotate(ctx, key, keywright.KeyRotateParams{})
		var lost recoverer
		require.ErrorAs(t, err, &lost)
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		found, err := lost.Recover(short)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, keywright.Ambiguous, found.Outcome, "too soon to tell")
	})
}

func TestRotateRouteMissing(t *testing.T) {
	t.Parallel()
	for status, class := range map[int]error{404: keywright.ErrNotFound, 405: nil} {
		fake := keywrighttest.StartAceData(t, keywrighttest.WithoutRotate(status))
		ad := aceData(t, fake)
		c, err := ad.Credential.Create(t.Context(), keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(fake.ApplicationID())})
		require.NoError(t, err)
		err = ad.Credential.Rotate(t.Context(), c)
		var api *keywright.APIError
		require.ErrorAs(t, err, &api)
		assert.Equal(t, status, api.StatusCode)
		assert.Equal(t, keywright.Rejected, keywright.OutcomeOf(err))
		if class != nil {
			require.ErrorIs(t, err, class)
		}
		assert.Equal(t, []string{c.Token.Reveal()}, fake.AcceptedTokens(string(c.ID)))
	}
}

func TestCredentialService(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	clock := new(keywrighttest.Clock)
	fake := keywrighttest.StartAceData(t, keywrighttest.WithClock(clock), keywrighttest.WithNullsRefused())
	ad := aceData(t, fake)
	app := keywright.ApplicationID(fake.ApplicationID())
	expires := clock.Now().Add(time.Hour).Truncate(time.Second)
	c, err := ad.Credential.Create(ctx, keywright.CredentialCreateParams{
		ApplicationID: app, Name: keywright.Set("ci"), LimitedAmount: keywright.Set(10.0), ExpiredAt: keywright.Set(expires),
		Host: keywright.Set("api.example"), AllowedAPIIDs: keywright.Set(fake.APIIDs()), Tags: keywright.Set([]string{"a"}),
		Metadata: keywright.Set(map[string]any{"k": []any{1.0, "x"}}), ForUserID: keywright.Set("89518d07-0000-4000-8000-000000000002"),
	})
	require.NoError(t, err)
	assert.Equal(t, keywright.CredentialToken, c.Type)
	assert.True(t, c.Type.Known() && c.Granted)
	assert.Equal(t, app, c.ApplicationID)
	assert.InDelta(t, 10, *c.LimitedAmount, 0)
	assert.True(t, expires.Equal(*c.ExpiredAt))
	assert.Equal(t, fake.APIIDs(), c.AllowedAPIIDs)
	assert.Equal(t, map[string]any{"k": []any{1.0, "x"}}, c.Metadata)
	assert.Equal(t, "openai", c.Application.Service.Alias)
	id := c.ID
	require.NoError(t, ad.Credential.Update(ctx, c, keywright.CredentialUpdateParams{
		Name: keywright.Null[string](), LimitedAmount: keywright.Null[float64](), ExpiredAt: keywright.Null[time.Time](), AllowedAPIIDs: keywright.Null[[]string](),
	}))
	assert.Equal(t, id, c.ID)
	assert.Empty(t, c.Name)
	assert.Nil(t, c.LimitedAmount)
	assert.Nil(t, c.ExpiredAt)
	assert.Empty(t, c.AllowedAPIIDs)
	_, err = ad.Credential.UpdateWithID(ctx, id, keywright.CredentialUpdateParams{AllowedAPIIDs: keywright.Set([]string{"550e8400-e29b-41d4-a716-446655440000"})})
	var api *keywright.APIError
	require.ErrorAs(t, err, &api)
	assert.Equal(t, map[string][]string{"allowed_api_ids": {"Unknown API id."}}, api.Fields)
	require.NoError(t, ad.Credential.Delete(ctx, c))
	_, err = ad.Credential.Retrieve(ctx, id)
	require.ErrorIs(t, err, keywright.ErrNotFound)

	proxy := keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(fake.ProxyApplicationID())}
	identity, err := ad.Credential.Create(ctx, proxy)
	require.NoError(t, err)
	assert.Equal(t, keywright.CredentialIdentity, identity.Type)
	assert.NotEmpty(t, identity.Username)
	assert.False(t, identity.Password.IsZero())
	_, err = ad.Credential.Create(ctx, proxy)
	require.ErrorIs(t, err, keywright.ErrInvalid)

	application, err := ad.Application.Retrieve(ctx, app)
	require.NoError(t, err)
	assert.Equal(t, keywright.ServiceAPI, application.Service.Type)
	service := fake.ServiceID()
	_, err = ad.Application.Create(ctx, keywright.ApplicationCreateParams{ServiceID: service})
	require.NoError(t, err)
	_, err = ad.Application.Create(ctx, keywright.ApplicationCreateParams{ServiceID: service})
	require.ErrorIs(t, err, keywright.ErrDuplicate)
	assert.True(t, application.Type.Known() && application.Scope.Known())

	me, err := ad.PlatformToken.Me(ctx)
	require.NoError(t, err)
	assert.Equal(t, fake.UserID(), me.ID)
	pt, err := ad.PlatformToken.Create(ctx, keywright.PlatformTokenCreateParams{})
	require.NoError(t, err)
	got, err := ad.PlatformToken.Retrieve(ctx, pt.ID)
	require.NoError(t, err)
	assert.True(t, got.Token.Equal(pt.Token))
	require.NoError(t, ad.PlatformToken.Delete(ctx, pt.ID))
	_, err = ad.PlatformToken.Retrieve(ctx, pt.ID)
	require.ErrorIs(t, err, keywright.ErrNotFound)
}

func TestMeMustBeAUser(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartAceData(t)
	fake.Inject(keywrighttest.Fault{Op: "platform_token.me", When: keywrighttest.AfterApply, Edit: members(func(m map[string]any) { m["id"] = "../../x" })})
	_, err := aceData(t, fake).Credential.List(t.Context(), keywright.CredentialListParams{})
	require.ErrorAs(t, err, new(*keywright.DecodeError))
}

func TestTaskService_Wait(t *testing.T) {
	t.Parallel()
	answers := func(states ...string) http.RoundTripper {
		i := 0
		return roundTripFunc(func(r *http.Request) (*http.Response, error) {
			state := states[min(i, len(states)-1)]
			i++
			return &http.Response{StatusCode: 200, Body: readCloser(`{"id":"t-1","state":"` + state + `"}`), Request: r}, nil
		})
	}
	synctest.Test(t, func(t *testing.T) {
		rc := ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{Transport: answers("pending", "processing", "suspended", "failed")}))
		start := time.Now()
		task, err := rc.Task.Wait(t.Context(), "t-1")
		require.NoError(t, err, "a task that failed is no error")
		assert.Equal(t, keywright.TaskFailed, task.State)
		assert.Equal(t, 2375*time.Millisecond, time.Since(start), "0.5 s, 0.75 s, 1.125 s")
		rc = ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{Transport: answers("pending")}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		task, err = rc.Task.Wait(ctx, "t-1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, keywright.TaskPending, task.State, "as last seen")
		_, err = rc.Task.Wait(t.Context(), "..")
		require.ErrorIs(t, err, keywright.ErrInvalidID)
	})
	assert.True(t, keywright.TaskSuspended.Known() && !keywright.TaskSuspended.Terminal())
	assert.True(t, keywright.EventFailed.Known() && !keywright.EventState("x").Known())
}

func TestWebhookTestIsDelivered(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	got := make(chan *http.Request, 8)
	addr := rawServer(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r
		if strings.HasPrefix(r.URL.Path, "/bad") {
			w.WriteHeader(500)
		}
	})
	fake := keywrighttest.StartRicloud(t)
	rc := ricloud(t, fake)
	for path, want := range map[string]keywright.ConfigState{"/in": keywright.ConfigValid, "/bad/": keywright.ConfigInvalid} {
		hook, err := rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "http://" + addr + path})
		require.NoError(t, err)
		<-got // a create tests the config
		task, err := rc.WebhookConfig.Test(ctx, hook, keywright.WithAwait(5*time.Second))
		require.NoError(t, err)
		require.True(t, task.State.Terminal())
		r := <-got
		assert.Regexp(t, `^t=\d+,s=[A-Za-z0-9+/]{43}=$`, r.Header.Get("Ricloud-Signature"))
		hook, err = rc.WebhookConfig.Retrieve(ctx, hook.ID)
		require.NoError(t, err)
		assert.Equal(t, want, hook.State)
	}
}

func TestSecretDecoding(t *testing.T) {
	t.Parallel()
	var s keywright.Secret
	require.NoError(t, json.Unmarshal([]byte(` "p\u00e4ss word" `), &s))
	assert.Equal(t, "päss word", s.Reveal())
	for _, bad := range []string{"null", `""`, "12", `{}`, `"\u0007"`, `"\ud800"`, "\"\xff\"", `"` + strings.Repeat("a", 4097) + `"`, `"a","s":"b"`, "", `"\ufffd"`} {
		err := s.UnmarshalJSON([]byte(bad))
		require.Error(t, err, bad)
		if len(bad) > 20 {
			assert.NotContains(t, err.Error(), bad)
		}
	}
	assert.Equal(t, "päss word", s.Reveal(), "an error leaves it alone")
	b, err := json.Marshal(struct {
		A keywright.Secret
		B keywright.Secret `json:",omitzero"`
	}{})
	require.NoError(t, err)
	assert.JSONEq(t, `{"A":null}`, string(b))
	for _, f := range []func() ([]byte, error){s.MarshalJSON, s.MarshalText, s.MarshalBinary, s.GobEncode} {
		_, err := f()
		require.ErrorIs(t, err, keywright.ErrSecretEncoding)
	}
	var zero keywright.Secret
	for _, f := range []func() ([]byte, error){zero.MarshalText, zero.MarshalBinary, zero.GobEncode} {
		b, err := f()
		require.NoError(t, err)
		assert.Empty(t, b)
	}
	assert.Equal(t, zero, keywright.NewSecret(""))
	assert.Empty(t, zero.String()+zero.Reveal()+zero.Fingerprint())
	assert.Equal(t, "keywright.Secret{}", zero.GoString())
	assert.True(t, s.Equal(keywright.NewSecret("päss word")))
	assert.False(t, s.Equal(zero))
	assert.Len(t, s.Fingerprint(), 12)
	assert.Equal(t, s.Fingerprint(), keywright.NewSecret("päss word").Fingerprint())
	assert.NotEqual(t, s.Fingerprint(), keywright.NewSecret("other").Fingerprint())
}

func TestOpt(t *testing.T) {
	t.Parallel()
	type p struct {
		A keywright.Opt[string]    `json:"a,omitzero"`
		B keywright.Opt[float64]   `json:"b,omitzero"`
		C keywright.Opt[time.Time] `json:"c,omitzero"`
		D keywright.Opt[[]string]  `json:"d,omitzero"`
	}
	for want, v := range map[string]p{
		`{}`:                           {},
		`{"a":null,"b":null}`:          {A: keywright.Null[string](), B: keywright.Null[float64]()},
		`{"a":"","b":0,"d":[]}`:        {A: keywright.Set(""), B: keywright.Set(0.0), D: keywright.Set([]string{})},
		`{"c":"2026-12-31T23:00:00Z"}`: {C: keywright.Set(time.Date(2027, 1, 1, 1, 0, 0, 0, time.FixedZone("", 7200)))},
	} {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		assert.JSONEq(t, want, string(b))
	}
	_, err := json.Marshal(p{C: keywright.Set(time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC))})
	require.Error(t, err)
	v, ok := keywright.Set(5).Get()
	assert.True(t, ok && v == 5)
	_, ok = keywright.Null[int]().Get()
	assert.False(t, ok)
	assert.True(t, keywright.Null[int]().IsNull() && !keywright.Set(1).IsNull() && (keywright.Opt[int]{}).IsZero())
	_, err = keywright.Set(func() {}).MarshalJSON()
	require.Error(t, err)
	require.False(t, errors.Is(err, keywright.ErrSecretEncoding))
}
