package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright"
)

// ErrNotDelivered: ricloud's test of the webhook failed: the receiver did not
// answer 2xx.
var ErrNotDelivered = errors.New("webhook: the test delivery failed")

// ErrInUse: a webhook config cannot be retired, because it is in effect for
// somebody else.
var ErrInUse = errors.New("webhook: the webhook config is in effect elsewhere")

// Registration is a webhook config of ricloud that delivers to a receiver of
// this program, and what was in its place before. It is safe for concurrent
// use.
//
//	reg, err := webhook.Register(ctx, rc, "https://example.com/hooks")
//	http.Handle("/hooks/", webhook.Handler(reg.Verifier(), inbox.Accept, webhook.WithStore(inbox)))
//	… start the server …
//	err = reg.Activate(ctx)
//	defer reg.Close(context.WithoutCancel(ctx))
type Registration struct {
	rc       *keywright.Ricloud
	url      string
	target   target
	verifier *Verifier

	mu      sync.Mutex
	current *keywright.WebhookConfig
	made    []keywright.WebhookConfigID // by this registration, to be deleted
	former  *keywright.WebhookConfigID  // of the target, before
	active  bool
	old     *keywright.WebhookConfig // being replaced
	doubt   *keywright.WebhookConfig // may have replaced current, or not
}

// RegisterOption says what a [Registration] is for.
type RegisterOption func(*target)

// target is what a config is in effect for.
type target struct {
	key          keywright.KeyID // 0: the client's own
	organisation bool
}

// ForKey puts the config into effect for the events of one key. The default is
// the key that the client authenticates with.
func ForKey(id keywright.KeyID) RegisterOption { return func(t *target) { *t = target{key: id} } }

// ForOrganisation puts the config into effect for all keys of the organisation
// that have none of their own.
func ForOrganisation() RegisterOption { return func(t *target) { *t = target{organisation: true} } }

// Register finds a webhook config for url, or makes one, and returns it with a
// verifier for its secret. Nothing is delivered to it before
// [Registration.Activate], but for the test of a config that is new. A config
// whose secret the provider masks is not used again. Errors are those of the
// SDK; a create whose answer was lost is looked into with Recover.
func Register(ctx context.Context, rc *keywright.Ricloud, url string, opts ...RegisterOption) (*Registration, error) {
	if rc == nil {
		return nil, keywright.ErrNotInitialized
	}
	r := &Registration{rc: rc, url: url}
	for _, opt := range opts {
		opt(&r.target)
	}
	var err error
	if r.target == (target{}) {
		key, err := rc.Key.Current(ctx)
		if err != nil {
			return nil, err
		}
		r.target.key = key.ID
	}
	if r.former, err = r.inEffect(ctx); err != nil {
		return nil, err
	}
	if r.current, err = r.find(ctx); err != nil {
		return nil, err
	}
	if r.current == nil {
		if r.current, err = r.create(ctx); err != nil {
			return nil, err
		}
	}
	if r.verifier, err = NewVerifier([]keywright.Secret{r.current.Secret}); err != nil {
		return nil, errors.Join(err, r.removeMade(context.WithoutCancel(ctx)))
	}
	return r, nil
}

// Verifier returns the verifier of the registration's deliveries. It follows
// [Registration.Replace] and [Registration.Retire].
func (r *Registration) Verifier() *Verifier { return r.verifier }

// Config returns the id of the webhook config in use.
func (r *Registration) Config() keywright.WebhookConfigID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current.ID
}

// find returns a config for the URL whose secret is known: the one in effect,
// if that is one.
func (r *Registration) find(ctx context.Context) (*keywright.WebhookConfig, error) {
	var found *keywright.WebhookConfig
	for c, err := range r.rc.WebhookConfig.All(ctx, keywright.WebhookConfigListParams{}) {
		if err != nil {
			return nil, err
		}
		if strings.TrimSuffix(c.URL, "/") != strings.TrimSuffix(r.url, "/") ||
			c.State == keywright.ConfigDeactivated || c.Secret.IsZero() || secretProblem(c.Secret.Reveal()) != "" {
			continue
		}
		if found == nil || r.former != nil && c.ID == *r.former {
			found = c
		}
	}
	return found, nil
}

// recoverFor bounds how long a create whose answer was lost is looked for.
const recoverFor = 2 * time.Minute

// create makes a config. If the answer is lost, it is looked for, also if ctx
// has ended, and made once more if it is not there.
func (r *Registration) create(ctx context.Context) (*keywright.WebhookConfig, error) {
	lasting := context.WithoutCancel(ctx)
	var c *keywright.WebhookConfig
	var err error
	for try := 1; try <= 2; try++ {
		var again bool
		if c, again, err = r.createOnce(ctx, lasting); !again || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	r.made = append(r.made, c.ID)
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, r.remove(lasting, c.ID))
	}
	if c.Secret.IsZero() {
		return nil, errors.Join(fmt.Errorf("%w: the provider masks it", ErrInvalidSecret), r.remove(lasting, c.ID))
	}
	return c, nil
}

// createOnce makes a config, and reports whether it certainly was not made.
func (r *Registration) createOnce(ctx, lasting context.Context) (c *keywright.WebhookConfig, again bool, err error) {
	c, err = r.rc.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: r.url})
	var lost interface {
		Recover(context.Context) (*keywright.Recovery, error)
	}
	if !errors.Is(err, keywright.ErrOutcomeUnknown) || !errors.As(err, &lost) {
		return c, false, err
	}
	look, cancel := context.WithTimeout(lasting, recoverFor)
	defer cancel()
	found, rerr := lost.Recover(look)
	if rerr != nil {
		return nil, false, errors.Join(err, rerr)
	}
	if made, ok := found.Resource().(*keywright.WebhookConfig); ok {
		return made, false, nil
	}
	return nil, found.Outcome == keywright.NotApplied, err
}

// inEffect returns the config that the target has now; nil if it has none.
func (r *Registration) inEffect(ctx context.Context) (*keywright.WebhookConfigID, error) {
	if r.target.organisation {
		o, err := r.rc.Organisation.Retrieve(ctx)
		if err != nil {
			return nil, err
		}
		return o.WebhookConfigDefault, nil
	}
	key, err := r.rc.Key.Retrieve(ctx, r.target.key)
	if err != nil {
		return nil, err
	}
	return key.WebhookConfig, nil
}

// point makes the target use a config; nil: none of its own. It has the same
// effect twice as once, so that one whose answer was lost is done again.
func (r *Registration) point(ctx context.Context, id *keywright.WebhookConfigID) error {
	config := keywright.Null[keywright.WebhookConfigID]()
	if id != nil {
		config = keywright.Set(*id)
	}
	send := func() error {
		if r.target.organisation {
			_, err := r.rc.Organisation.Update(ctx, keywright.OrganisationUpdateParams{WebhookConfigDefault: config})
			return err
		}
		_, err := r.rc.Key.UpdateWithID(ctx, r.target.key, keywright.KeyUpdateParams{WebhookConfig: config})
		return err
	}
	err := send()
	if errors.Is(err, keywright.ErrOutcomeUnknown) && ctx.Err() == nil {
		err = send()
	}
	return err
}

// Activate has ricloud test the config, which delivers a signed event to the
// receiver, waits for the result, and puts the config into effect. The
// receiver must be serving. If the test fails the error matches
// [ErrNotDelivered], and nothing has changed.
func (r *Registration) Activate(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.test(ctx, r.current); err != nil {
		return err
	}
	if !r.active {
		former, err := r.inEffect(ctx)
		if err != nil {
			return err
		}
		r.former = former
	}
	r.active = true // it may take effect whatever comes back; Close looks
	return r.point(ctx, &r.current.ID)
}

// testAwait is how long ricloud is asked to wait with its answer for the end of
// a test.
const testAwait = 5 * time.Second

// test waits until a config has passed its test. One whose answer was lost is
// begun again: it changes nothing.
func (r *Registration) test(ctx context.Context, c *keywright.WebhookConfig) error {
	begin := func() (*keywright.Task, error) {
		return r.rc.WebhookConfig.TestWithID(ctx, c.ID, keywright.WithAwait(testAwait))
	}
	task, err := begin()
	if errors.Is(err, keywright.ErrOutcomeUnknown) && ctx.Err() == nil {
		task, err = begin()
	}
	if err == nil && !task.State.Terminal() {
		task, err = r.rc.Task.Wait(ctx, task.ID)
	}
	switch {
	case err != nil:
		return err
	case task.State != keywright.TaskSucceeded:
		return fmt.Errorf("%w: config %d", ErrNotDelivered, c.ID)
	}
	return nil
}

// Replace changes the secret without a gap: it makes a second config, whose
// secret the verifier accepts beside the old one from now on, has it tested,
// and puts it into effect. Deliveries that were begun before still come with
// the old secret: call [Registration.Retire] when their attempts are over. If
// it fails, all is as it was; if the provider cannot even be asked for that,
// both secrets stay accepted, and Close clears up.
func (r *Registration) Replace(ctx context.Context) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.old != nil {
		return fmt.Errorf("webhook: config %d is still to be retired", r.old.ID)
	}
	if done, err := r.settleDoubt(ctx); done || err != nil {
		return err
	}
	next, err := r.create(ctx)
	if err != nil {
		return err
	}
	cleanup, both := context.WithoutCancel(ctx), false
	defer func() {
		if err != nil && !both {
			err = errors.Join(err, r.remove(cleanup, next.ID), r.verifier.SetSecrets(r.current.Secret))
		}
	}()
	if err := r.verifier.SetSecrets(next.Secret, r.current.Secret); err != nil {
		return err
	}
	if err := r.test(ctx, next); err != nil {
		return err
	}
	if r.active {
		now, err := r.inEffect(ctx)
		if err != nil {
			return err
		}
		if now == nil || !r.ours(*now) {
			return fmt.Errorf("%w: somebody has put another config into effect", ErrInUse)
		}
		if err := r.point(ctx, &next.ID); err != nil {
			back := r.point(cleanup, &r.current.ID)
			if both = back != nil; both { // and nobody knows which one is in effect
				r.doubt = next
			}
			return errors.Join(err, back)
		}
	}
	r.old, r.current = r.current, next
	return nil
}

// settleDoubt finds out what became of a replacement that could neither be
// carried out nor taken back, and reports whether it was carried out after all.
func (r *Registration) settleDoubt(ctx context.Context) (done bool, err error) {
	if r.doubt == nil {
		return false, nil
	}
	now, err := r.inEffect(ctx)
	if err != nil {
		return false, err
	}
	doubt := r.doubt
	if now != nil && *now == doubt.ID {
		r.old, r.current, r.doubt = r.current, doubt, nil
		return true, nil
	}
	if err := r.remove(ctx, doubt.ID); err != nil {
		return false, err
	}
	r.doubt = nil
	return false, r.verifier.SetSecrets(r.current.Secret)
}

// ours reports whether a config is in use by this registration.
func (r *Registration) ours(id keywright.WebhookConfigID) bool {
	return id == r.current.ID || slices.Contains(r.made, id)
}

// Retire deletes the config that [Registration.Replace] has replaced, and
// accepts its secret no more. It does nothing if there is none. If that config
// is in effect for another key or the organisation too,
// the error matches [ErrInUse], and nothing has changed.
func (r *Registration) Retire(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.old == nil {
		return nil
	}
	if err := r.unused(ctx, r.old.ID); err != nil {
		return err
	}
	if err := r.remove(ctx, r.old.ID); err != nil {
		return err
	}
	if r.former != nil && *r.former == r.old.ID {
		// What was in effect before is gone: what has replaced it stays.
		id := r.current.ID
		r.former = &id
		r.made = slices.DeleteFunc(r.made, func(m keywright.WebhookConfigID) bool { return m == id })
	}
	r.old = nil
	return r.verifier.SetSecrets(r.current.Secret)
}

// unused returns an error if a config is in effect for anybody.
func (r *Registration) unused(ctx context.Context, id keywright.WebhookConfigID) error {
	o, err := r.rc.Organisation.Retrieve(ctx)
	if err != nil {
		return err
	}
	if o.WebhookConfigDefault != nil && *o.WebhookConfigDefault == id {
		return fmt.Errorf("%w: config %d, the organisation's default", ErrInUse, id)
	}
	for k, err := range r.rc.Key.All(ctx, keywright.KeyListParams{}) {
		if err != nil {
			return err
		}
		if k.WebhookConfig != nil && *k.WebhookConfig == id {
			return fmt.Errorf("%w: config %d, key %d", ErrInUse, id, k.ID)
		}
	}
	return nil
}

// remove deletes a config. One that is gone is deleted.
func (r *Registration) remove(ctx context.Context, id keywright.WebhookConfigID) error {
	err := r.rc.WebhookConfig.DeleteWithID(ctx, id)
	if err != nil && !errors.Is(err, keywright.ErrNotFound) {
		return err
	}
	r.made = slices.DeleteFunc(r.made, func(m keywright.WebhookConfigID) bool { return m == id })
	return nil
}

// Close puts back what was in effect before, unless somebody else has put yet
// another config into effect meanwhile, and deletes the configs that this
// registration has made. It may be called again after an error.
func (r *Registration) Close(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.active {
		now, err := r.inEffect(ctx)
		if err != nil {
			return err
		}
		if now != nil && r.ours(*now) && (r.former == nil || *r.former != *now) {
			if err := r.restore(ctx); err != nil {
				return err
			}
		}
		r.active = false
	}
	return r.removeMade(ctx)
}

// restore puts back what was in effect before: nothing, if that is gone.
func (r *Registration) restore(ctx context.Context) error {
	err := r.point(ctx, r.former)
	if err == nil || r.former == nil {
		return err
	}
	if _, gone := r.rc.WebhookConfig.Retrieve(ctx, *r.former); errors.Is(gone, keywright.ErrNotFound) {
		return r.point(ctx, nil)
	}
	return err
}

// removeMade deletes what this registration has made, but for what others use
// by now.
func (r *Registration) removeMade(ctx context.Context) error {
	var errs []error
	for _, id := range slices.Clone(r.made) {
		err := r.unused(ctx, id)
		if err == nil {
			err = r.remove(ctx, id)
		}
		if !errors.Is(err, ErrInUse) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
