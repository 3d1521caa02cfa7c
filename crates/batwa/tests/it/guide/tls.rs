//! TLS of our own, and behind a proxy.

use batwa_tls::{CertificateSource, ServedCertificate};

use super::{each, printed, stage::Stage};

#[tokio::test]
async fn tls_is_served_and_believed_as_printed() {
    let Some(mut stage) = Stage::boot("tls").await else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let names = vec!["MASTER".to_owned()];
    ServedCertificate::open(&CertificateSource::SelfSigned { names }, dir.path())
        .expect("a certificate");
    for (from, to) in [
        ("tls-cert.pem", "fullchain.pem"),
        ("tls-key.pem", "privkey.pem"),
    ] {
        let pem = std::fs::read_to_string(dir.path().join(from)).expect("PEM");
        let path = format!("/etc/ssl/batwa/{to}");
        stage.machine.write(&path, "600", &pem).await;
    }
    let command = printed(
        "batwa up --tls-cert /etc/ssl/batwa/fullchain.pem --tls-key /etc/ssl/batwa/privkey.pem",
    );
    let master = stage.master(&command).await;
    stage
        .run("curl -sf --cacert /etc/ssl/batwa/fullchain.pem https://MASTER:8000/health")
        .await;
    stage.stop(master).await;

    let master = stage.master(&printed("batwa up --tls self-signed")).await;
    stage.set("SHA256", master.process.certificate().to_string());
    let key = stage.key("office-1").await;
    stage.set("KEY", key);
    let told = each(
        "batwa ls --url https://MASTER:8000 --master-certificate \"$SHA256\"          # or BATWA_MASTER_CERTIFICATE",
    );
    let [list, agent] = &told[..] else {
        panic!("not two: {told:?}");
    };
    stage.run(list).await;
    let agent = stage.start(agent).await;
    stage.agent_is("office-1", "online").await;
    stage.stop(agent).await;
    stage.stop(master).await;

    let behind = printed(
        "batwa up --host 127.0.0.1 --public-url https://vms.example.org --trusted-proxy 127.0.0.1",
    );
    let master = stage.start(&behind).await;
    let address = master.process.address("Batwa is at").await;
    assert_eq!(address, "https://vms.example.org");
}
