package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/webhook"
)

// program is a receiver whose handler comes after its server, as its verifier
// does.
type program struct {
	inbox
	f      *keywrighttest.Ricloud
	rc     *keywright.Ricloud
	url    string
	mu     sync.Mutex
	h      http.Handler
	status int // answered in place of the handler's, if not 0
}

func start(t *testing.T, opts ...keywrighttest.Option) *program {
	t.Helper()
	p := &program{f: keywrighttest.StartRicloud(t, append(opts, keywrighttest.WithDeliveryDelays(20*time.Millisecond))...)}
	p.rc = client(t, p.f)
	p.url = serve(t, p).URL + "/hooks"
	return p
}

// ServeHTTP implements [http.Handler].
func (p *program) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	h, status := p.h, p.status
	p.mu.Unlock()
	if h == nil || status != 0 {
		w.WriteHeader(max(status, http.StatusServiceUnavailable))
		return
	}
	h.ServeHTTP(w, r)
}

func (p *program) answer(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = status
}

func (p *program) register(t *testing.T, opts ...webhook.RegisterOption) *webhook.Registration {
	t.Helper()
	reg, err := webhook.Register(t.Context(), p.rc, p.url, opts...)
	require.NoError(t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.h = webhook.Handler(reg.Verifier(), p.accept)
	return reg
}

// configs returns how many webhook configs there are.
func (p *program) configs(t *testing.T) int {
	t.Helper()
	all, err := keywright.Collect(p.rc.WebhookConfig.All(t.Context(), keywright.WebhookConfigListParams{}), 100)
	require.NoError(t, err)
	return len(all)
}

// inEffect returns the config of key 1; 0: none.
func (p *program) inEffect(t *testing.T) keywright.WebhookConfigID {
	t.Helper()
	key, err := p.rc.Key.Retrieve(t.Context(), 1)
	require.NoError(t, err)
	if key.WebhookConfig == nil {
		return 0
	}
	return *key.WebhookConfig
}

// use makes a config and puts it into effect for key 1.
func (p *program) use(t *testing.T, url string) keywright.WebhookConfigID {
	t.Helper()
	config, err := p.rc.WebhookConfig.Create(t.Context(), keywright.WebhookConfigCreateParams{URL: url})
	require.NoError(t, err)
	_, err = p.rc.Key.UpdateWithID(t.Context(), 1, keywright.KeyUpdateParams{WebhookConfig: keywright.Set(config.ID)})
	require.NoError(t, err)
	return config.ID
}

// refused returns the deliveries that had no success,
// but for tests of configs: the provider tests a config as soon as it is made,
// when nobody else can know its secret.
func (p *program) refused(t *testing.T) (list []string) {
	t.Helper()
	for _, a := range p.f.Attempts() {
		if a.Status != http.StatusNoContent {
			e, err := p.rc.Event.Retrieve(t.Context(), keywright.EventID(a.Event))
			require.NoError(t, err)
			if e.Slug() != webhook.WebhookConfigTest {
				list = append(list, fmt.Sprintf("%s, attempt %d: %d %v", e.Slug(), a.N, a.Status, a.Err))
			}
		}
	}
	return list
}

func TestRegister(t *testing.T) {
	t.Parallel()
	for name, former := range map[string]string{"nothing before": "", "another before": "https://hooks.example.com/x"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t)
			var before keywright.WebhookConfigID
			if former != "" {
				before = p.use(t, former)
			}
			configs := p.configs(t)
			reg := p.register(t)
			assert.Equal(t, before, p.inEffect(t), "nothing is in effect before Activate")
			require.NoError(t, reg.Activate(t.Context()))
			assert.Equal(t, reg.Config(), p.inEffect(t))
			id := p.f.Emit("session", "expired", nil)
			assert.Equal(t, "delivered", settled(t, p.f, id))
			assert.Len(t, p.of(id), 1)
			for range 2 {
				require.NoError(t, reg.Close(t.Context()))
				assert.Equal(t, before, p.inEffect(t), "the former one is back")
				assert.Equal(t, configs, p.configs(t), "no config is left over")
			}
		})
	}
	_, err := webhook.Register(t.Context(), nil, "")
	require.ErrorIs(t, err, keywright.ErrNotInitialized)
}

func TestRegisterForOthers(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.f.AddKeys(1)
	reg := p.register(t, webhook.ForKey(2))
	require.NoError(t, reg.Activate(t.Context()))
	key, err := p.rc.Key.Retrieve(t.Context(), 2)
	require.NoError(t, err)
	assert.Equal(t, reg.Config(), *key.WebhookConfig)
	assert.Zero(t, p.inEffect(t))
	require.NoError(t, reg.Close(t.Context()))

	reg = p.register(t, webhook.ForOrganisation())
	require.NoError(t, reg.Activate(t.Context()))
	o, err := p.rc.Organisation.Retrieve(t.Context())
	require.NoError(t, err)
	require.Equal(t, reg.Config(), *o.WebhookConfigDefault)
	id := p.f.Emit("session", "expired", nil)
	assert.Equal(t, "delivered", settled(t, p.f, id))
	require.NoError(t, reg.Close(t.Context()))
	o, err = p.rc.Organisation.Retrieve(t.Context())
	require.NoError(t, err)
	assert.Nil(t, o.WebhookConfigDefault)
	assert.Zero(t, p.configs(t))
}

// A config that is there for the URL is used again, and stays.
func TestRegisterReuses(t *testing.T) {
	t.Parallel()
	p := start(t)
	other, err := p.rc.WebhookConfig.Create(t.Context(), keywright.WebhookConfigCreateParams{URL: p.url})
	require.NoError(t, err)
	mine := p.use(t, p.url+"/")
	third, err := p.rc.WebhookConfig.Create(t.Context(), keywright.WebhookConfigCreateParams{URL: p.url})
	require.NoError(t, err)
	reg := p.register(t)
	assert.Equal(t, mine, reg.Config(), "the one in effect, of %d, %d and %d", other.ID, mine, third.ID)
	require.NoError(t, reg.Activate(t.Context()))
	require.NoError(t, reg.Close(t.Context()))
	assert.Equal(t, mine, p.inEffect(t))
	assert.Equal(t, 3, p.configs(t))

	// One whose secret cannot be read is of no use.
	masked := start(t, keywrighttest.WithMaskedTokens())
	old := masked.use(t, masked.url)
	reg = masked.register(t)
	assert.NotEqual(t, old, reg.Config())
	require.NoError(t, reg.Activate(t.Context()))
	require.NoError(t, reg.Close(t.Context()))
	assert.Equal(t, old, masked.inEffect(t))
	assert.Equal(t, 1, masked.configs(t))
}

// If the receiver does not answer its test, nothing changes.
func TestActivateFails(t *testing.T) {
	t.Parallel()
	p := start(t)
	before := p.use(t, "https://hooks.example.com/x")
	reg := p.register(t)
	p.answer(http.StatusInternalServerError)
	require.ErrorIs(t, reg.Activate(t.Context()), webhook.ErrNotDelivered)
	assert.Equal(t, before, p.inEffect(t))
	require.ErrorIs(t, reg.Replace(t.Context()), webhook.ErrNotDelivered)
	assert.Equal(t, 2, p.configs(t), "the new one was removed")
	p.answer(0)
	require.NoError(t, reg.Activate(t.Context()))
	p.answer(http.StatusInternalServerError)
	require.ErrorIs(t, reg.Replace(t.Context()), webhook.ErrNotDelivered)
	assert.Equal(t, reg.Config(), p.inEffect(t))
	p.answer(0)
	id := p.f.Emit("session", "expired", nil)
	assert.Equal(t, "delivered", settled(t, p.f, id))
	require.NoError(t, reg.Close(t.Context()))
	assert.Equal(t, before, p.inEffect(t))
	assert.Equal(t, 1, p.configs(t))
}

// Whichever request is lost, before it takes effect or after, no config is left
// over, and the former one is back.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"webhook_config.create", "webhook_config.test", "webhook_config.delete", "webhook_config.list", "key.update", "key.current", "key.retrieve", "task.retrieve"} {
		for name, when := range map[string]keywrighttest.Moment{"before": keywrighttest.BeforeApply, "after": keywrighttest.AfterApply} {
			t.Run(op+" "+name, func(t *testing.T) {
				t.Parallel()
				p := start(t)
				before := p.use(t, "https://hooks.example.com/x")
				lose := func() {
					p.f.ClearFaults()
					p.f.Inject(keywrighttest.Fault{Op: op, When: when, Do: keywrighttest.Drop})
				}
				lose()
				reg := p.register(t)
				lose()
				require.NoError(t, reg.Activate(t.Context()))
				lose()
				require.NoError(t, reg.Replace(t.Context()))
				lose()
				require.NoError(t, reg.Retire(t.Context()))
				p.f.ClearFaults()
				assert.Equal(t, reg.Config(), p.inEffect(t))
				id := p.f.Emit("session", "expired", nil)
				assert.Equal(t, "delivered", settled(t, p.f, id))
				lose()
				require.NoError(t, reg.Close(t.Context()))
				p.f.ClearFaults()
				assert.Equal(t, before, p.inEffect(t))
				assert.Equal(t, 1, p.configs(t), "no config is left over")
			})
		}
	}
}

// Close after a change that is in doubt looks, and puts the former one back.
func TestCloseAfterDoubt(t *testing.T) {
	t.Parallel()
	p := start(t)
	before := p.use(t, "https://hooks.example.com/x")
	reg := p.register(t)
	p.f.Inject(keywrighttest.Fault{Op: "key.update", When: keywrighttest.AfterApply, Do: keywrighttest.Drop, Times: -1})
	require.ErrorIs(t, reg.Activate(t.Context()), keywright.ErrOutcomeUnknown)
	require.Equal(t, reg.Config(), p.inEffect(t))
	require.Error(t, reg.Close(t.Context()))
	p.f.ClearFaults()
	require.NoError(t, reg.Close(t.Context()), "it may be called again")
	assert.Equal(t, before, p.inEffect(t))
	assert.Equal(t, 1, p.configs(t))
}

// A replacement that can neither be made nor undone refuses no delivery, and
// Close clears up.
func TestReplaceInDoubt(t *testing.T) {
	t.Parallel()
	p := start(t)
	reg := p.register(t)
	require.NoError(t, reg.Activate(t.Context()))
	p.f.Inject(keywrighttest.Fault{Op: "key.update", When: keywrighttest.AfterApply, Do: keywrighttest.Answer, Status: 500, Body: "{}", Times: -1})
	require.Error(t, reg.Replace(t.Context()))
	p.f.ClearFaults()
	id := p.f.Emit("session", "expired", nil)
	assert.Equal(t, "delivered", settled(t, p.f, id))
	require.NoError(t, reg.Replace(t.Context()))
	require.NoError(t, reg.Retire(t.Context()))
	id = p.f.Emit("session", "expired", nil)
	assert.Equal(t, "delivered", settled(t, p.f, id))
	require.NoError(t, reg.Close(t.Context()))
	assert.Zero(t, p.inEffect(t))
	assert.Zero(t, p.configs(t))
}

// Somebody else's config that was put into effect meanwhile stays.
func TestCloseLeavesOthers(t *testing.T) {
	t.Parallel()
	p := start(t)
	reg := p.register(t)
	require.NoError(t, reg.Activate(t.Context()))
	theirs := p.use(t, "https://hooks.example.com/theirs")
	require.NoError(t, reg.Close(t.Context()))
	assert.Equal(t, theirs, p.inEffect(t))
	assert.Equal(t, 1, p.configs(t))
}

// While the secret is replaced, again and again, deliveries come under both,
// and not one is refused.
func TestReplaceWithoutAGap(t *testing.T) {
	t.Parallel()
	p := start(t)
	reg := p.register(t)
	require.NoError(t, reg.Activate(t.Context()))
	ctx, stop := context.WithCancel(t.Context())
	var ids []string
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			id := p.f.Emit("session", "expired", nil)
			ids = append(ids, id)
			_, _ = p.f.WaitDelivered(t.Context(), id)
		}
	})
	var late []string // of each config, an event that comes again after it was replaced
	for range 3 {
		old, err := p.rc.WebhookConfig.Retrieve(t.Context(), reg.Config())
		require.NoError(t, err)
		require.NoError(t, reg.Replace(t.Context()))
		assert.NotEqual(t, old.ID, reg.Config())
		require.ErrorContains(t, reg.Replace(t.Context()), "still to be retired")
		id := p.f.Emit("session", "expired", nil)
		late = append(late, id)
		assert.Equal(t, "delivered", settled(t, p.f, id))
		status, err := p.f.Deliver(id, keywrighttest.Delivery{Secret: old.Secret.Reveal()})
		require.NoError(t, err)
		assert.Equal(t, http.StatusNoContent, status, "the old secret, before Retire")
		// The provider signs with the secret of the config that was in effect
		// when a delivery began: let those end.
		for e, err := range p.rc.Event.All(t.Context(), keywright.EventListParams{}) {
			require.NoError(t, err)
			_, _ = p.f.WaitDelivered(t.Context(), string(e.ID)) // an error: nobody delivers it
		}
		require.NoError(t, reg.Retire(t.Context()))
		require.NoError(t, reg.Retire(t.Context()), "nothing to do")
		status, err = p.f.Deliver(id, keywrighttest.Delivery{Secret: old.Secret.Reveal()})
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, status, "the old secret, after Retire")
	}
	stop()
	wg.Wait()
	assert.Empty(t, p.refused(t))
	for _, id := range append(ids, late...) {
		assert.Len(t, p.of(id), 1)
	}
	require.NoError(t, reg.Close(t.Context()))
	assert.Zero(t, p.configs(t))
}

// The secret of a config that was there before is replaced for good, and not
// while somebody else has it in effect.
func TestReplaceFormer(t *testing.T) {
	t.Parallel()
	p := start(t)
	before := p.use(t, p.url)
	p.f.AddKeys(1)
	_, err := p.rc.Key.UpdateWithID(t.Context(), 2, keywright.KeyUpdateParams{WebhookConfig: keywright.Set(before)})
	require.NoError(t, err)
	reg := p.register(t)
	require.Equal(t, before, reg.Config())
	require.NoError(t, reg.Activate(t.Context()))
	require.NoError(t, reg.Replace(t.Context()))
	err = reg.Retire(t.Context())
	require.ErrorIs(t, err, webhook.ErrInUse)
	assert.ErrorContains(t, err, "config 1, key 2")
	_, err = p.rc.Key.UpdateWithID(t.Context(), 2, keywright.KeyUpdateParams{WebhookConfig: keywright.Null[keywright.WebhookConfigID]()})
	require.NoError(t, err)
	_, err = p.rc.Organisation.Update(t.Context(), keywright.OrganisationUpdateParams{WebhookConfigDefault: keywright.Set(before)})
	require.NoError(t, err)
	require.ErrorIs(t, reg.Retire(t.Context()), webhook.ErrInUse)
	_, err = p.rc.Organisation.Update(t.Context(), keywright.OrganisationUpdateParams{WebhookConfigDefault: keywright.Null[keywright.WebhookConfigID]()})
	require.NoError(t, err)
	require.NoError(t, reg.Retire(t.Context()))
	require.NoError(t, reg.Close(t.Context()))
	assert.Equal(t, reg.Config(), p.inEffect(t), "what has replaced it stays")
	assert.Equal(t, 1, p.configs(t))
}

// A URL that the client refuses leaves nothing behind.
func TestRegisterRefuses(t *testing.T) {
	t.Parallel()
	p := start(t)
	_, err := webhook.Register(t.Context(), p.rc, "ftp://127.0.0.1/")
	var param *keywright.ParamError
	require.ErrorAs(t, err, &param)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = webhook.Register(ctx, p.rc, p.url)
	require.True(t, errors.Is(err, context.Canceled), "%v", err)
	assert.Zero(t, p.configs(t))
}

// If the provider does not hold its answer until the test is over, the task is
// waited for.
func TestActivateWaits(t *testing.T) {
	t.Parallel()
	p := start(t)
	reg := p.register(t)
	p.f.Inject(keywrighttest.Fault{
		Op: "webhook_config.test", When: keywrighttest.AfterApply, Do: keywrighttest.Answer,
		Edit: func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"succeeded"`), []byte(`"processing"`), 1)
		},
	})
	require.NoError(t, reg.Activate(t.Context()))
	assert.Equal(t, 1, p.f.Count("task.retrieve"))
	require.NoError(t, reg.Close(t.Context()))
}
