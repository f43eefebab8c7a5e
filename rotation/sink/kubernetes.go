package sink

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright"
)

// KubernetesConfig says which key of which Secret a token goes to.
type KubernetesConfig struct {
	// Address is the API server's, "https://10.0.0.1:443".
	Address string
	// Namespace is where the Secret is.
	Namespace string
	// Name is the Secret's. It is created, with type Opaque, if it does not
	// exist.
	Name string
	// Key is the key in the Secret's data that holds the token. The other keys
	// are not touched.
	Key string
	// Token provides the bearer token, of a service account as a rule. It is
	// asked for each request, so that a projected token may expire.
	Token keywright.TokenSource
	// HTTPClient is used in place of the sink's own; it is copied, and the
	// copy follows no redirects. It is the place for the cluster's CA.
	HTTPClient *http.Client
	// Lag is how long the kubelets may take to bring a new value to the volumes
	// that mount the Secret; zero is 90 seconds, which suits their default
	// settings.
	Lag time.Duration
	// UntilRestart says that pods read the Secret in a way that is never
	// brought up to date: as environment variables, or mounted by subPath.
	UntilRestart bool
}

const (
	kubernetesOp = "sink.KubernetesSecret"
	kubeletLag   = 90 * time.Second
	inClusterDir = "/var/run/secrets/kubernetes.io/serviceaccount"
	mergePatch   = "application/merge-patch+json"
)

// InCluster returns the configuration of a sink for a program that runs in a
// pod: address, CA and token are those of its service account, whose token
// file may be renewed at any time. An empty namespace is the pod's own. The
// result is for [KubernetesSecret], and may be changed before.
func InCluster(namespace, name, key string) (KubernetesConfig, error) {
	return inCluster(inClusterDir, os.Getenv, namespace, name, key)
}

func inCluster(dir string, getenv func(string) string, namespace, name, key string) (KubernetesConfig, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return KubernetesConfig{}, &keywright.ConfigError{
			Source: "KUBERNETES_SERVICE_HOST", Reason: "it or KUBERNETES_SERVICE_PORT is not set; this is not a pod",
		}
	}
	ca := filepath.Join(dir, "ca.crt")
	pem, err := os.ReadFile(ca)
	if err != nil {
		return KubernetesConfig{}, &keywright.ConfigError{Source: ca, Reason: "cannot be read", Err: err}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return KubernetesConfig{}, &keywright.ConfigError{Source: ca, Reason: "holds no certificate"}
	}
	if namespace == "" {
		file := filepath.Join(dir, "namespace")
		b, err := os.ReadFile(file)
		if err != nil {
			return KubernetesConfig{}, &keywright.ConfigError{Source: file, Reason: "cannot be read", Err: err}
		}
		namespace = strings.TrimSpace(string(b))
	}
	return KubernetesConfig{
		Address:   "https://" + net.JoinHostPort(host, port),
		Namespace: namespace, Name: name, Key: key,
		Token:      keywright.FileToken(filepath.Join(dir, "token")),
		HTTPClient: &http.Client{Transport: ownTransport(roots)},
	}, nil
}

// KubernetesSecret returns a sink that is one key of a Secret. A write names
// the resource version that was read, so that the API server refuses it if
// the Secret has changed since; that version is the Reading.Version, which is
// empty if the Secret does not exist.
func KubernetesSecret(cfg KubernetesConfig) (Sink, error) {
	r, err := newRest(kubernetesOp, cfg.Address, cfg.Token, cfg.HTTPClient)
	if err != nil {
		return nil, err
	}
	if err := checkParams(kubernetesOp, param{"Namespace", cfg.Namespace, false},
		param{"Name", cfg.Name, false}, param{"Key", cfg.Key, false}); err != nil {
		return nil, err
	}
	if cfg.Lag < 0 {
		return nil, &keywright.ParamError{Op: kubernetesOp, Field: "Lag", Reason: "is negative"}
	}
	cfg.Lag = cmp.Or(cfg.Lag, kubeletLag)
	if cfg.UntilRestart {
		cfg.Lag = 0
	}
	r.name = "kubernetes " + r.base + " " + cfg.Namespace + "/" + cfg.Name + "#" + cfg.Key
	r.needs = "get and patch on secrets in namespace " + strconv.Quote(cfg.Namespace) +
		", and create if the Secret does not exist"
	r.headers = func(h http.Header, token string) { h.Set("Authorization", "Bearer "+token) }
	return &kubernetesSecret{rest: r, cfg: cfg, secrets: "/api/v1/namespaces/" + escapePath(cfg.Namespace) + "/secrets"}, nil
}

type kubernetesSecret struct {
	rest    *rest
	cfg     KubernetesConfig
	secrets string // path of the namespace's
}

func (k *kubernetesSecret) Name() string { return k.rest.name }

func (k *kubernetesSecret) Traits() Traits {
	return Traits{
		Lag:          k.cfg.Lag,
		UntilRestart: k.cfg.UntilRestart,
		Readable:     true,
		Grade:        GradeReadBack,
		Guarantee:    "The API server has stored the token in the Secret, which nobody had changed since it was read.",
	}
}

func (k *kubernetesSecret) path() string { return k.secrets + "/" + escapePath(k.cfg.Name) }

func (k *kubernetesSecret) Read(ctx context.Context) (Reading, error) {
	now, _, err := k.get(ctx, k.rest.begin("read"))
	return now, err
}

func (k *kubernetesSecret) Confirm(ctx context.Context, token keywright.Secret) error {
	x := k.rest.begin("confirm", token)
	now, _, err := k.get(ctx, x)
	if err != nil {
		return err
	}
	return x.holds(now, token)
}

func (k *kubernetesSecret) CompareAndWrite(ctx context.Context, previous Reading, token keywright.Secret) error {
	x := k.rest.begin("write", token, previous.Token)
	if token.IsZero() {
		return x.fail(ErrRefused, "there is no token to write")
	}
	now, immutable, err := k.get(ctx, x)
	if err != nil {
		return err
	}
	if err := x.unchanged(now, previous); err != nil {
		return err
	}
	if now.Token.Equal(token) {
		return nil
	}
	if immutable {
		return x.fail(ErrRefused, "the Secret is immutable; create another, or delete it and create it again")
	}
	secret := kubernetesObject{
		Metadata: kubernetesMetadata{ResourceVersion: now.Version},
		Data:     map[string]string{k.cfg.Key: base64.StdEncoding.EncodeToString([]byte(token.Reveal()))},
	}
	r := request{http.MethodPatch, k.path(), mergePatch, nil}
	if now.Version == "" {
		r = request{http.MethodPost, k.secrets, "application/json", nil}
		secret.APIVersion, secret.Kind, secret.Type = "v1", "Secret", "Opaque"
		secret.Metadata.Name, secret.Metadata.Namespace = k.cfg.Name, k.cfg.Namespace
	}
	if r.body, err = json.Marshal(secret); err != nil {
		return x.fail(ErrRefused, "the Secret cannot be encoded")
	}
	a, err := x.send(ctx, r)
	switch {
	case err != nil:
		return err
	case a.status == http.StatusOK, a.status == http.StatusCreated:
		return nil
	case a.status == http.StatusConflict:
		return x.fail(ErrConflict, x.saying(a, "somebody else has changed the Secret"))
	case a.status == http.StatusNotFound && now.Version != "":
		return x.fail(ErrConflict, x.saying(a, "somebody else has deleted the Secret"))
	case a.status == http.StatusNotFound:
		return x.refuse(a, "there is no namespace "+strconv.Quote(k.cfg.Namespace)+"; create it")
	case a.status == http.StatusUnprocessableEntity:
		return x.refuse(a, "the API server takes the Secret for invalid")
	}
	return x.refuse(a, "the API server refused")
}

type kubernetesMetadata struct {
	Name            string `json:"name,omitempty"`
	Namespace       string `json:"namespace,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
}

// kubernetesObject is as much of a Secret as is sent.
type kubernetesObject struct {
	APIVersion string             `json:"apiVersion,omitempty"`
	Kind       string             `json:"kind,omitempty"`
	Metadata   kubernetesMetadata `json:"metadata"`
	Type       string             `json:"type,omitempty"`
	Data       map[string]string  `json:"data"`
}

// get reads the Secret, and whether it is immutable.
func (k *kubernetesSecret) get(ctx context.Context, x *exchange) (now Reading, immutable bool, err error) {
	a, err := x.send(ctx, request{method: http.MethodGet, path: k.path()})
	if err != nil {
		return Reading{}, false, err
	}
	if a.status != http.StatusOK && a.status != http.StatusNotFound {
		return Reading{}, false, x.refuse(a, "the API server refused")
	}
	var body struct {
		Kind      string             `json:"kind"`
		Reason    string             `json:"reason"` // of a Status
		Metadata  kubernetesMetadata `json:"metadata"`
		Immutable bool               `json:"immutable"`
		Data      map[string]string  `json:"data"`
	}
	if err := x.decode(a, &body); err != nil {
		return Reading{}, false, err
	}
	switch {
	case a.status == http.StatusNotFound && body.Kind == "Status" && body.Reason == "NotFound":
		return Reading{}, false, nil
	case a.status != http.StatusOK, body.Kind != "Secret", body.Metadata.ResourceVersion == "":
		return Reading{}, false, x.refuse(a, "this is not the API of Kubernetes; mend the address")
	}
	token, err := base64.StdEncoding.DecodeString(body.Data[k.cfg.Key])
	if err != nil {
		return Reading{}, false, x.fail(ErrTemporary, "key "+strconv.QuoteToASCII(k.cfg.Key)+" is not base64")
	}
	now = Reading{Token: keywright.NewSecret(string(token)), Version: body.Metadata.ResourceVersion}
	x.hide(now.Token)
	return now, body.Immutable, nil
}
