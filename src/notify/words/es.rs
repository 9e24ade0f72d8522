//! Spanish, in words that are understood on both sides of the Atlantic (`vencer`, not `caducar`).

use super::{Story, Words};

pub(super) fn words(story: Story, name: Option<&str>, date: Option<&str>) -> Words {
    let (subject, what) = subject_and_fact(story, date);
    Words {
        subject,
        greeting: name.map_or_else(|| "Hola:".to_owned(), |name| format!("Hola, {name}:")),
        what,
        why: match story {
            Story::Expiring => None,
            Story::Refused => Some(
                "Suele ocurrir después de un cambio de contraseña, de una verificación de seguridad de Instagram o \
                 cuando se retira el permiso.",
            ),
            Story::LoginNeeded { .. } => {
                Some("Esta vez no se puede renovar automáticamente: Instagram pide que inicies sesión de nuevo.")
            }
        },
        act: match story {
            Story::Expiring | Story::LoginNeeded { .. } => {
                "Para seguir recibiendo mensajes y comentarios, abre el sistema y reconecta tu cuenta."
            }
            Story::Refused => "Para volver a recibir mensajes y comentarios, abre el sistema y reconecta tu cuenta.",
        },
        button: "Reconectar Instagram",
        copy: "Si el botón no funciona, copia esta dirección en tu navegador:",
        otherwise: match story {
            Story::Expiring | Story::LoginNeeded { .. } => {
                "Si no la reconectas, pronto dejarás de recibir notificaciones."
            }
            Story::Refused => "Mientras no la reconectes, no recibirás notificaciones.",
        },
        footer: "Recibes este correo porque tu cuenta de Instagram está conectada a nuestro sistema. Si ya la \
                 reconectaste, puedes ignorar este aviso.",
    }
}

fn subject_and_fact(story: Story, date: Option<&str>) -> (String, String) {
    const RENEW: &str = "Tu conexión con Instagram necesita renovarse";
    match story {
        Story::Expiring => {
            let until = date.map_or_else(String::new, |date| format!(" y solo es válida hasta el {date}"));
            (RENEW.to_owned(), format!("{RENEW}: está a punto de vencer{until}."))
        }
        Story::Refused => (
            "Tu conexión con Instagram dejó de funcionar".to_owned(),
            "Tu conexión con Instagram dejó de funcionar y necesita renovarse.".to_owned(),
        ),
        Story::LoginNeeded { days_left } => {
            let when = match days_left {
                Some(1) => "vence en 1 día".to_owned(),
                Some(days) => format!("vence en {days} días"),
                None => "está a punto de vencer".to_owned(),
            };
            let on = date.map_or_else(String::new, |date| format!(" ({date})"));
            let subject = format!("Tu conexión con Instagram {when}");
            let what = format!("{subject}{on} y necesita renovarse.");
            (subject, what)
        }
    }
}
