"""The small words of a prompt in English, German, French, Spanish and Latin.

What a word does in a prompt is all that is kept of it: it gives a side, joins a list, takes something
out of it, is a structure that cannot be segmented, or says nothing about organs at all.
"""

from __future__ import annotations

from progidiff.prompts.target import Side

# A side that stands before its noun ("left kidney"), unless there is none ("kidney, left").
SIDE_BEFORE: dict[Side, str] = {
    "right": "right r rt righthand rightsided rechte rechter rechtes rechten rechtem rechtsseitige",
    "left": "left l lt lefthand leftsided linke linker linkes linken linkem linksseitige",
}
# A side that stands after its noun ("rein gauche").
SIDE_AFTER: dict[Side, str] = {
    "right": """
        rechts droit droite droits droites dt dte derecho derecha derechos derechas dcho dcha
        dexter dextra dextrum dext
    """,
    "left": """
        links gauche gauches gche izquierdo izquierda izquierdos izquierdas izq izqdo izqda
        sinister sinistra sinistrum
    """,
}
# Letters that are a side only right beside a pair: "Niere re", "rein G", "riñón der".
SHORT_SIDES: dict[str, Side] = {"re": "right", "li": "left", "der": "right", "d": "right", "g": "left"}
SINGLE_LETTER_SIDES = ("d", "g")
# Before a noun these would also be "re-segment the kidneys": there only before a German one.
NOUNS_AFTER_SHORT_SIDES = ("niere", "nebenniere")
# Elsewhere "der" is the German article.
NOUNS_BEFORE_DER = ("rinon", "suprarrenal", "glandulassuprarrenal", "glandulasuprarrenal")
# After these, and after short sides, a full stop need not end a sentence: "riñones der. e izq.".
SHORTENED_SIDES = "r l rt lt dt dte dcha dcho dext gche izq izqdo izqda"
# What may stand between a side and its noun: "right-sided kidney".
SIDE_NOUNS = ("side", "sided", "hand")
AND = "and und et y e & + atque ac or oder ou o plus sowie also además aussi"
EXCEPT = """
    except excepting exclude excluding excl excluded omitted not dont doesnt isnt arent shouldnt mustnt wont
    without minus omit omitting skip skipping ignore ignoring barring exc no none nothing neither nor never
    außer ausser ohne nicht ausgenommen kein keine keinen keiner keines keinem weder nichts nie niemals
    statt anstatt anstelle exklusive exkl weglassen entfernen
    sauf sans excepté hormis pas aucun aucune ni jamais
    excepto excluyendo quitando sin menos salvo ningún ninguno ninguna nada nunca
    praeter sine non nec neque
"""
# These take something out only of what was named before: "everything, remove the liver".
TAKING_AWAY = "remove removing drop dropping leave leaving"
# Misspelt words that must not be ignored: what is to be left out, or the whole organ for its tumor, would be
# drawn. A list, because every rule of likeness takes ordinary words for them ("kleine" and "keine").
MISSPELT_EXCEPT = """
    exept execpt excpt excpet ecxept exluding excludng exclding exlude withot withuot witout wihtout wthout
    auser aussre exepto execpto exceto suaf
"""
MISSPELT_TUMOR = """
    tumr tumur tumuor tumro tomor tumer tumers tumos leison leisons lesoin lesionss leasion leasions carcinom
    metastsis metastasys
"""
# A contrast: begins an exception after several organs ("all but the liver"), ends the one it stands in.
BUT = "but besides sondern sino pero mais aber sed"
# After a comma it ends an exception: "not the liver, only the spleen".
ONLY = "only just nur bloss seulement uniquement solo solamente unicamente"
# "All" is everything only where nothing else is named: "all of the liver" is the liver.
ALL = "all every each alle sämtliche tout tous toute toutes todo todos toda todas omnes"

COMMANDS = """
    segment segmenting segmented outline outlining delineate contour contoured extract find show mark
    highlight locate isolate label draw annotate trace mask identify get give make create compute
    generate detect produce
    segmentiere segmentieren segmentier zeige zeig zeigen markiere markieren umrande umranden einfärben
    suche finde einzeichnen segmente segmenter segmentez montre montrez montrer trouver trouve délimiter
    cherche marquer
    segmenta segmentar segmente muestra mostrar encuentra marca marcar monstra monstretur delimitar
"""
FILLERS = """
    a an the this that these those my your our its their his her of in on at for from with to by as into
    around over me you i we us it he she they is are was be been am do does did can could would should
    will shall may must please pls plz kindly pleese thanks thank hi hello hey dear now here there where
    teh hte what which how who when why if so then only just both bilateral pair entire whole complete
    completely full fully exactly exact precise total single one ones two side sided sides let lets like
    want need needs looking look see try have has help go big large small enlarged normal segmentation
    segmentations masks outlines contours annotation annotations region regions volume volumes boundary
    boundaries label labels map maps labelmap organ organs structure structures target targets part
    parts pixels voxels belong belongs area tissue tissues parenchyma volumetry shape surface scan scans
    image images ct mr mri t1 t2 spir dixon hu 3d 2d cta tac irm pet series slice slices dicom abdomen
    abdominal upper lower patient patients case phase venous arterial portovenous delayed contrast
    enhanced colour color lie lies located alright okay ok again first second next finally too together
    way quickly fast asap automatically accurately carefully nicely well good great best job up out name
    named called
    der die das den dem des ein eine einen einem einer bitte im in am auf aus von vom zu zur zum mir
    mich ich wir sie uns er es ist sind wo was wie brauche möchte können könnten könntest kannst mögen
    gerne mal nur beide beiden beider ganze ganzen ganzes gesamte gesamten komplett segmentierung
    segmentierungen maske masken kontur konturen umriss volumen organe gewebe bild bilder danke hier
    jetzt dieser diese dieses diesem diesen lieber leben für mit
    le la les l un une des du de d au aux dans sur pour avec ce cet cette ces je tu nous vous veuillez s
    il te plaît plait sil merci moi où est sont pourriez pouvez peux voudrais deux seulement entier
    entière segmentation masque contour scanner organe organes image ici bien que se
    el los las unos unas del al en con por para favor porfavor este esta estos estas quiero quisiera ver
    dónde está están necesito puede puedes podría ambos ambas dos solo sólo entero entera completo
    completa segmentación máscara contorno órgano órganos imagen gracias aquí lo me
    ubi quaeso segmentatio totum tota uterque ambo organum organa
    male female man woman adult child year years old yo very much more most pretty possible visible present
    available high low quality axial coronal sagittal hounsfield window resolution fine draft
    smooth accurate quick
    noch lives lived live liner lifer lover lower layer level niece
"""
# Several words that would mean something else one by one.
PHRASES_WITHOUT_MEANING = (
    "right now", "right away", "not only", "if not", "if you do not mind", "if you don't mind", "why not",
    "nothing but", "nothing except", "nothing other than", "none but", "none except", "no organ but",
    "no organ except", "no organs but", "no organs except", "nothing else", "nothing more",
    "but also", "besides also", "no rush", "no hurry", "no problem", "no doubt",
    "at all", "not at all", "all of it", "all in all", "after all", "above all", "first of all", "all set",
    "once and for all", "all the same", "all good", "that is all", "that's all",
    "portal venous", "portal venous phase", "portalvenöse Phase", "portalvenösen Phase",
    "portalvenöser Phase", "without contrast", "without iv contrast", "no contrast", "no iv contrast",
    "non contrast", "not enhanced", "non enhanced", "ohne Kontrast", "ohne Kontrastmittel", "ohne KM",
    "sans contraste", "sans injection", "sin contraste",
    "vor allem", "alles klar", "nicht nur", "sondern auch", "aber auch", "sonst nichts", "nichts als",
    "segmentez moi", "rien d'autre", "du tout", "tout de suite", "tout d'abord", "avant tout",
    "pas seulement", "non seulement", "mais aussi", "mais également",
    "nada más", "del todo", "sobre todo", "ante todo", "no solo", "no solamente", "sino también",
    "pero también",
)  # fmt: skip
PHRASES_OF_EXCEPTION = (
    "apart from", "aside from", "other than", "anything but", "leave out", "leaving out", "do not",
    "save for", "with the exception of", "instead of", "rather than", "in place of",
    "bis auf", "mit Ausnahme", "abgesehen von",
    "à part", "à l'exclusion de", "à l'exclusion du", "à l'exclusion des",
    "à l'exception de", "à l'exception du", "à l'exception des", "au lieu de", "au lieu du",
    "plutôt que", "a excepción de", "con excepción de", "aparte de", "en lugar de", "en vez de",
)  # fmt: skip

# Structures that are often asked for and cannot be given: never taken for a misspelt organ.
OTHER_STRUCTURES = """
    lung lungs pulmonary lobe lobes heart cardiac ventricle ventricles atrium atria myocardium
    pericardium brain cerebrum cerebellum brainstem skull bone bones spine spinal vertebra vertebrae
    vertebral rib ribs sternum pelvis hip hips femur femurs sacrum coccyx humerus tibia fibula scapula
    clavicle knee leg arm hand foot shoulder neck head tail muscle muscles psoas iliopsoas gluteus fat
    adipose skin colon bowel bowels intestine intestines duodenum jejunum ileum cecum caecum rectum
    appendix anus bladder ureter ureters urethra prostate uterus ovary ovaries testis testes testicle
    testicles vagina vesicle vesicles breast breasts thyroid parathyroid trachea bronchus bronchi
    airway airways mediastinum diaphragm mesentery omentum peritoneum lymph node nodes thymus ascites
    aneurysm thrombus varices hernia artery arteries vein veins vessel vessels vasculature duct ducts
    cortex medulla hilum flexure sphincter valve wall lumen svc sma smv iliac celiac coeliac
    mesenteric coronary carotid subclavian jugular azygos thorax eye eyes ear ears nose mouth tongue
    tooth teeth nerve nerves disc discs disk disks cartilage tendon ligament meniscus hippocampus
    parotid gland glands placenta fetus embryo fluid air blood stent catheter implant sella pituitary
    tonsil larynx pharynx cochlea amygdala thalamus ganglion gonads pleura couinaud belly pole poles
    arch dome caudate antrum pylorus calyx calyces
    half gallstone gallstones adrenaline precava postcard hepatitis
    lunge lungen lungenflügel herz hirn gehirn schädel knochen wirbel wirbelkörper wirbelsäule rippe
    rippen darm dünndarm dickdarm enddarm zwölffingerdarm blase harnblase harnleiter gebärmutter
    eierstock eierstöcke hoden prostata becken arterie arterien vene venen gefäß gefäße lappen
    leberlappen lebervene lebervenen muskel muskeln fett haut schilddrüse luftröhre zwerchfell
    nierenarterie nierenvene kopf schwanz
    poumon poumons coeur cerveau crâne os vertèbre vertèbres côte côtes intestin côlon vessie duodénum
    utérus ovaire ovaires artère artères veine veines vaisseau vaisseaux thyroïde trachée diaphragme
    rachis lobes peau graisse tête crosse
    pulmón pulmones corazón cerebro cráneo hueso huesos vértebra vértebras costilla costillas
    intestino vejiga duodeno próstata útero ovario ovarios arteria arterias vena venas vaso vasos
    músculo músculos tiroides tráquea lóbulo lóbulos grasa piel columna cabeza
    pulmo pulmones cor cerebri vertebrarum caput cauda ductus arcus
    river rivers lever diver silver
    other others contralateral ipsilateral opposite
"""
OTHER_PHRASES = (
    "urinary bladder", "bile duct", "common bile duct", "spinal cord", "lymph node", "lymph nodes",
    "small bowel", "superior vena cava", "vena cava superior", "vena cava superieure", "vena cava sup",
    "upper vena cava", "cranial vena cava", "obere Hohlvene", "veine cave supérieure", "veine cave sup",
    "vesícula seminal", "vesículas seminales", "celiac trunk",
    "superior mesenteric artery", "superior mesenteric vein",
    "common iliac artery", "aortic arch", "aortic valve", "thoracic aorta", "ascending aorta",
    "ascending part of the aorta", "aorta thoracica", "aorta torácica", "aorte thoracique", "thorakale Aorta",
    "aorta ascendens", "aorta ascendente", "aorte ascendante", "queue du pancréas", "cola de páncreas",
    "cola del páncreas", "renal pelvis", "inferior mesenteric vein",
)  # fmt: skip
# What is found in an organ and named together with it. Some models draw tumors; nothing else is drawn.
# Several can be of all organs of a list: "liver and pancreas tumors".
SEVERAL_TUMORS = """
    tumors tumours lesions masses mets cancers carcinomas metastases neoplasms malignancies adenomas
    adenocarcinomas hepatomas hemangiomas haemangiomas angiomyolipomas
    tumore tumoren läsionen herde rundherde metastasen karzinome raumforderungen adenome hämangiome
    tumeurs lésions métas métastases carcinomes adénomes hémangiomes
    tumores lesiones masas neoplasias hemangiomas
"""
ONE_TUMOR = """
    tumor tumour lesion mass cancer carcinoma metastasis neoplasm neoplasia malignancy adenoma
    adenocarcinoma hepatoma hemangioma haemangioma angiomyolipoma cholangiocarcinoma oncocytoma insulinoma
    met hcc chc rcc pdac
    läsion herd rundherd metastase karzinom krebs raumforderung adenom hämangiom
    tumeur lésion métastase masse carcinome néoplasie adénome hémangiome
    lesión metástasis masa cáncer
"""
TUMORS = ONE_TUMOR + SEVERAL_TUMORS
OTHER_FINDINGS = """
    cyst cysts pseudocyst pseudocysts polyp polyps infarct infarcts laceration thrombosis fnh nodule nodules
    stone stones calculus calculi hematoma haematoma abscess abscesses lymphoma
    zyste zysten stein steine abszess kyste kystes abcès quiste quistes absceso
    nódulo nódulos
"""
# What may stand between an organ and its finding: "renal cell carcinoma", "tumor in the left kidney".
FINDING_KINDS = """
    cell ductal metastatic malignant benign primary secondary focal solid suspicious small large
    malin maligne maligno maligna primario
"""
FINDING_LINKS = """
    of in within inside on at the a my both der die das des dem den im in von beiden beider
    du de d la le l les des dans en del el los las ambos
"""
# Adjectives that name an organ, by its usual name, only beside a finding.
FINDING_ADJECTIVES = {
    "liver": """
        hepatocellular hepatische hepatischer hepatischen hepatisches hépatique hépatiques hepático hepática
        hepáticos hepáticas hepatocelular
    """,
    "spleen": """
        lienale lienaler lienalen splénique spléniques esplénico esplénica esplénicos esplénicas
    """,
    "pancreas": """
        pankreatische pankreatischer pankreatischen pancréatique pancréatiques pancreático pancreática
        pancreáticos pancreáticas
    """,
    "kidney": "renale renaler renalen rénal rénale rénaux rénales renales",
    "adrenal gland": """
        adrenale adrenaler adrenalen adrénal surrénalien surrénalienne surrénaliens surrénaliennes
        adrenocortical
    """,
    "stomach": "gastrique gastriques gástrico gástrica gástricos gástricas",
    "gallbladder": "vésiculaire vésiculaires vesicular vesiculares",
    "esophagus": """
        ösophageale ösophagealer œsophagien œsophagienne œsophagiens œsophagiennes esofágico esofágica
        esofágicos esofágicas
    """,
}
TUMOR_ENDINGS = """
    tumor tumore tumoren läsion läsionen metastase metastasen karzinom karzinome zellkarzinom
    zellkarzinome krebs raumforderung raumforderungen adenom adenome hämangiom hämangiome
"""
OTHER_FINDING_ENDINGS = "zyste zysten stein steine abszess abszesse"
# German puts the organ and what is wanted of it in one word: "Lebersegmentierung".
COMPOUND_ENDINGS = ("segmentierungen", "segmentierung", "konturen", "kontur", "masken", "maske", "volumen")
